"""The choice of a target: by what the user has typed, and by the environment.

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
    """Make the target that the user has chosen: `host` over SSH, a Docker `context`, or what the environment says.

    The environment says it as for Docker's own command: DOCKER_HOST, DOCKER_CONTEXT, the current context, the default.
    An address ssh://… is a host over SSH, too. `ask` gives a password, or a passphrase, where no key will do. Raises
    InputError for what is no host, HostError when it cannot be reached.
    """
    own = local(environment, context)
    if not host and own.address.startswith("ssh://"):
        host = own.address
    if not host:
        return own
    from mailstack.target import over_ssh

    return over_ssh.connect(host, own.address, ask)
