"""The sender set up by hand, as the course tells it: scripts for root and for the student, and `postfix reload`."""

from __future__ import annotations

from mailstack.lab.running import RunningLab
from tests.docker.reload import RELOAD

# In the course's spelling, with the student's own account.
COURSE = """
umask 077
echo '[postfix]:587 student@example.com:PASSWORD' > /etc/postfix/sasl_passwd
postmap hash:/etc/postfix/sasl_passwd
umask 022
postconf 'smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd' smtp_use_tls=yes smtp_tls_security_level=
"""


def root(lab: RunningLab, script: str) -> str:
    """Return the output of a script that succeeds on the sender; PASSWORD and OTHER in it are the accounts' own."""
    for word, account in (("PASSWORD", "student@example.com"), ("OTHER", "alice@example.com")):
        script = script.replace(word, lab.password(account).reveal())
    done = lab.engine.execute(lab.service("sender").container, ["sh", "-e"], input=script.encode())
    assert done.code == 0, done.stderr
    return done.stdout


def student(lab: RunningLab, script: str) -> None:
    """Run a script as the student, who has `sudo`."""
    done = lab.engine.execute(lab.service("sender").container, ["sh", "-c", script], user="student")
    assert done.code == 0, done.stderr


def reload(lab: RunningLab) -> None:
    """Have Postfix read its settings, and wait until no daemon has the old ones; not while it is stopped."""
    root(lab, f"if healthcheck && postconf relayhost 2>/dev/null; then {RELOAD}\nfi")


def set_up(lab: RunningLab, script: str = COURSE) -> None:
    """Set the sender up by hand."""
    root(lab, script)
    reload(lab)
