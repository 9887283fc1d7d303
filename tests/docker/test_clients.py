"""Mail programs that verify the name in the server's certificate work with the variables of `mailstack env`."""

from __future__ import annotations

import io
import secrets
import shlex
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from mailstack.actions import environment, sending
from mailstack.lab.running import RunningLab
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Deadline
from mailstack.protocol import imap, trust
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

IMAGE = "mailstack/clients:tests"
DOCKERFILE = b"""\
FROM debian:trixie-slim
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends fetchmail isync s-nail \\
 && rm -rf /var/lib/apt/lists/*
"""
SECONDS = 30.0
BOB = "bob@example.com"

FETCHMAIL = """\
umask 077
cat > ~/.fetchmailrc <<END
poll $IMAP_HOST service $IMAP_PORT protocol imap user "$IMAP_USER" password "$IMAP_PASSWORD"
sslproto TLS1.2+ sslcertck sslcertfile $MAIL_CA_FILE mda "cat >> /tmp/fetched" keep fetchall
END
fetchmail --nosyslog && cat /tmp/fetched
"""
MBSYNC = """\
umask 077
mkdir -p /tmp/mail
cat > ~/.mbsyncrc <<END
IMAPStore far
Host $IMAP_HOST
Port $IMAPS_PORT
User $IMAP_USER
Pass $IMAP_PASSWORD
TLSType IMAPS
SystemCertificates no
CertificateFile $MAIL_CA_FILE

MaildirStore near
Path /tmp/mail/
Inbox /tmp/mail/INBOX

Channel all
Far :far:
Near :near:
Create Near
END
mbsync --all && cat /tmp/mail/INBOX/*/*
"""
S_NAIL = """\
printf 'hello\\n' | s-nail -:/ -Sv15-compat -Smta="smtp://$SMTP_HOST:$SMTP_PORT" -Ssmtp-use-starttls \\
  -Suser="$SMTP_USER" -Spassword="$SMTP_PASSWORD" -Ssmtp-auth=login -Stls-ca-file="$MAIL_CA_FILE" \\
  -Stls-ca-no-defaults -Stls-verify=strict -Sfrom=shop@example.com -s "$SUBJECT" "$IMAP_USER"
"""


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab with a mail to read."""
    with labs.one("clients") as made:
        letter = sending.letter(made.definition(), None, [BOB], "for programs", "A line of text.", [])
        assert sending.send(made, letter, "submission", Deadline.after(SECONDS)).arrived
        yield made


@pytest.fixture(scope="module")
def machine(lab: RunningLab) -> Iterator[Any]:
    """Yield a container with Debian's packages of the programs, on this machine's network."""
    client = docker.from_env()
    client.images.build(fileobj=io.BytesIO(DOCKERFILE), tag=IMAGE, rm=True, forcerm=True)
    labels = {LABEL_LAB: lab.name, LABEL_OWNER: lab.state.owner, LABEL_EXPIRES: "never"}
    mounts = {str(lab.ca_file): {"bind": str(lab.ca_file), "mode": "ro"}}
    container = client.containers.run(
        IMAGE, ["sleep", "600"], detach=True, network_mode="host", labels=labels, volumes=mounts, init=True
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def run(lab: RunningLab, machine: Any, script: str, **more: str) -> str:
    """Run a script there; the lab's variables are on standard input, so that no other process sees them."""
    found = {**environment.revealed(environment.variables(lab, BOB)), **more}
    whole = "".join(f"{name}={shlex.quote(value)}\n" for name, value in found.items()) + script
    done = lab.engine.execute(machine.id, ["sh"], input=whole.encode())
    assert done.code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", [FETCHMAIL, MBSYNC], ids=["fetchmail", "mbsync"])
def test_a_mail_is_fetched_with_the_certificate_checked(lab: RunningLab, machine: Any, script: str) -> None:
    assert "A line of text." in run(lab, machine, script)


def test_a_mail_is_submitted_by_s_nail_with_the_certificate_checked(lab: RunningLab, machine: Any) -> None:
    subject = f"by s-nail {secrets.token_hex(4)}"
    run(lab, machine, S_NAIL, SUBJECT=subject)
    deadline = Deadline.after(SECONDS)
    with imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), BOB, lab.password(BOB)) as box:
        while not box.uids(f'SUBJECT "{subject}"'):
            assert not deadline.passed()
            box.idle.wait(timeout=0.2)


def test_by_its_address_they_refuse_the_server_which_is_why_they_are_told_its_name(
    lab: RunningLab, machine: Any
) -> None:
    with pytest.raises(AssertionError, match=r"(?i)certificate|mismatch"):
        run(lab, machine, FETCHMAIL.replace("$IMAP_HOST", "127.0.0.1"))
