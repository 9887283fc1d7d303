"""The Docker host that a command works on, as a value: this machine, a Docker context, or a host over SSH."""
