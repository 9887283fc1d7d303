"""Choose a target by the user's options and by the environment.

target = choose(os.environ, host="ssh://student@box")
Engine(target).info()
"""

from __future__ import annotations

from collections.abc import Mapping

from mailstack.secret import Ask
from mailstack.target.target import Target, local


def choose(
    environment: Mapping[str, str], *, host: str = "", context: str = "", ask: Ask = lambda question: None
) -> Target:
    """Return the chosen target: `host` over SSH, a Docker `context`, or the one that the environment selects.

    The environment works as for Docker's own command: DOCKER_HOST, DOCKER_CONTEXT, the current context, the default. An
    address ssh://… is a host over SSH, too. `ask` returns a password or a passphrase when no key is accepted. Raises
    InputError for an invalid host, HostError when it cannot be reached.
    """
    own = local(environment, context)
    if not host and own.address.startswith("ssh://"):
        host = own.address
    if not host:
        return own
    from mailstack.target import over_ssh

    return over_ssh.connect(host, own.address, ask)
