"""A lab as variables: programs in other languages send and read mail with these only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from tests.docker.conftest import Labs
from tests.docker.test_lab import MAILSTACK, answer, documented, mailstack, shape

pytestmark = pytest.mark.docker

DOCUMENT = Path(__file__).parents[2] / "docs" / "environment.md"


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("environment") as lab:
        yield lab


def in_a_shell(script: str, lab: RunningLab, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    """Run a script as a user would type it, with `mailstack` in PATH and the lab's name in $LAB."""
    environment = {**os.environ, "PATH": f"{Path(MAILSTACK).parent}:{os.environ['PATH']}", "LAB": lab.name}
    return subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def received(lab: RunningLab, address: str, message_id: str) -> None:
    """Check that the mail is in the mailbox."""
    with imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), address, lab.password(address)) as box:
        imap.wait_for(box, message_id, Deadline.after(15))


def test_a_shell_s_programs_send_and_read_with_the_variables_alone(lab: RunningLab) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    (example,) = re.findall(r"```sh\n# send-and-read\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    done = in_a_shell(f'set -eu; eval "$(mailstack env -n "$LAB" --account carol@example.org)"\n{example}', lab)
    assert (done.returncode, done.stderr.replace("\r", "")) == (0, "")
    assert "To: carol@example.org" in done.stdout and "Subject: hello" in done.stdout


def test_a_container_s_program_sends_with_a_file_of_variables(lab: RunningLab) -> None:
    lines = mailstack("env", "-n", lab.name, "--format", "dotenv").splitlines()
    script = (  # swaks is in Perl
        'exec swaks --server "$SMTP_HOST" --port "$SMTP_PORT" --tls --tls-verify --tls-ca-path "$MAIL_CA_FILE"'
        ' --auth-user "$SMTP_USER" --auth-password "$SMTP_PASSWORD" --from shop@example.org --to "$IMAP_USER"'
        " --header 'Message-Id: <swaks@example.org>'"
    )
    said = docker.from_env().containers.run(
        f"mailstack/sender:{lab.state.tag}",
        ["sh", "-c", script],
        entrypoint=[],
        environment=lines,
        network_mode="host",
        volumes=[f"{lab.ca_file}:{lab.ca_file}:ro"],
        user=f"{os.getuid()}",
        labels={"mailstack.lab": lab.name, "mailstack.owner": lab.state.owner},
        remove=True,
        stderr=True,
    )
    assert b"~> QUIT" in said, said.decode()
    received(lab, "alice@example.com", "<swaks@example.org>")


def test_what_trusts_by_itself_trusts_the_lab_on_request(lab: RunningLab) -> None:
    program = """
import os, smtplib, ssl
with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as session:
    session.starttls(context=ssl.create_default_context())
    session.login(os.environ["SMTP_USER"], os.environ["SMTP_PASSWORD"])
"""
    script = 'eval "$(mailstack env -n "$LAB" %s)"; exec python3 -c ' + f"'{program}'"
    assert "CERTIFICATE_VERIFY_FAILED" in in_a_shell(script % "", lab).stderr
    done = in_a_shell(script % "--trust", lab)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_answer_is_as_documented(lab: RunningLab) -> None:
    document = answer("env", "-n", lab.name)
    assert shape(document, documented("env")) == []
    variables = document["variables"]
    assert {name: variables[f"{name}_PORT"] for name in ("SMTP", "IMAPS", "POP3")} == {
        "SMTP": str(lab.endpoints["submission"].port),
        "IMAPS": str(lab.endpoints["imaps"].port),
        "POP3": str(lab.endpoints["pop3"].port),
    }
    assert (document["account"], variables["IMAP_USER"]) == ("alice@example.com", "alice@example.com")
    assert variables["IMAP_PASSWORD"] == lab.password("alice@example.com").reveal()
    others = answer("env", "-n", lab.name, "--account", "Bob@example.com", "--trust")
    assert set(others["variables"]) - set(variables) == {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"}
    assert others["account"] == others["variables"]["POP3_USER"] == "bob@example.com"
    for name in set(variables):
        assert f"`{name}`" in DOCUMENT.read_text()


@pytest.mark.parametrize("words", ["-n nowhere", '-n "$LAB" --account nobody@example.com', '-n "$LAB" --format csh'])
def test_where_there_is_nothing_to_say_nothing_is_evaluated(lab: RunningLab, words: str) -> None:
    done = in_a_shell(f"said=$(mailstack env {words}); code=$?; printf '%s' \"$said\"; exit $code", lab)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr and "Traceback" not in done.stderr
