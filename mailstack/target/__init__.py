"""The Docker host that a command works on, as a value: this machine, a context, a host over SSH."""
