"""Right configurations, made by hand on the sender in other spellings than the lab's own: `check relay` is green."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from mailstack.lab.running import RunningLab
from tests.docker import by_hand
from tests.docker.bad import MAILSTACK, run, until
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SAVED = "umask 077; echo '{key} {login}' > {path}; {made}; umask 022; postconf 'smtp_sasl_password_maps = {map}'; "
STUDENT = "student@example.com:PASSWORD"
TEXT = "/etc/postfix/sasl_passwd"


def saved(map: str, key: str = "[postfix]:587", login: str = STUDENT, path: str = TEXT) -> str:
    """Return the script that writes a map of passwords and has Postfix use it."""
    made = f"postmap {map}" if not map.startswith("texthash:") else "true"
    return SAVED.format(key=key, login=login, path=path, made=made, map=map)


RIGHT = {
    "as in the course": by_hand.COURSE,
    "lmdb elsewhere": saved("lmdb:/etc/postfix/sasl/secret", path="/etc/postfix/sasl/secret"),
    "texthash": saved(f"texthash:{TEXT}") + "postconf smtp_tls_loglevel=0 smtp_tls_security_level=secure",
    "the key is the host": saved(f"hash:{TEXT}", key="postfix") + "postconf smtp_tls_security_level=encrypt",
    "port 465": saved(f"hash:{TEXT}", key="[postfix]:465")
    + "postconf 'relayhost = [postfix]:465' smtp_tls_wrappermode=yes smtp_tls_security_level=encrypt",
}
# Every file with its contents, mode, owner and time.
STATE = "cd /etc/postfix; find . -type f -exec md5sum {} + | sort; find . -type f -printf '%m %u %T@ %p\n' | sort"


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab whose sender is set up by hand."""
    with labs.one("by-hand") as running:
        yield running


@pytest.mark.parametrize("script", RIGHT.values(), ids=RIGHT)
def test_a_right_configuration_made_by_hand_is_green_and_explain_lists_nothing(script: str, lab: RunningLab) -> None:
    assert run(["up", "-n", lab.name, "--reset"]).code == 0
    by_hand.set_up(lab, script)
    before = by_hand.root(lab, STATE)
    outcome = run(["check", "-n", lab.name, "relay"])
    assert outcome.code == 0, outcome.out
    assert by_hand.root(lab, STATE) == before
    assert run(["explain", "-n", lab.name, "--all"]).out.startswith("no known failures")


def test_a_check_that_is_killed_leaves_the_map_as_it_was(lab: RunningLab) -> None:
    assert run(["up", "-n", lab.name, "--reset"]).code == 0
    by_hand.set_up(lab)
    before = by_hand.root(lab, STATE)
    with subprocess.Popen((MAILSTACK, "check", "-n", lab.name, "relay"), stdout=-3, stderr=-3) as process:
        swapped = "cd /etc/postfix; ls -A | grep -q '^.check-' && ls .check-*/kept"
        container = lab.service("sender").container
        assert until(lambda: lab.engine.execute(container, ["sh", "-c", swapped]).code == 0, 60)
        process.send_signal(signal.SIGKILL)
    assert until(lambda: by_hand.root(lab, STATE) == before, 15), (by_hand.root(lab, STATE), before)
