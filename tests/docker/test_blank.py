"""The blank sender: Debian's own configuration, what it may do and may not, and that edits of it are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mailstack.lab import by_hand
from mailstack.lab import up as lab_up
from mailstack.lab.running import RunningLab
from mailstack.model import Result
from tests import engines
from tests.docker.bad import run
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab whose sender is blank; each test leaves it so."""
    name = labs.new_name("blank")
    lab_up.up(engines.here(), lab_up.Request(name, blank=True), lambda _: None)
    yield RunningLab(name, engines.here())
    labs.down(name)


def on_sender(lab: RunningLab, script: str, user: str = "") -> Result:
    """Run a shell script on the sender."""
    return lab.engine.execute(lab.service("sender").container, ["sh", "-c", script], user=user)


def done(lab: RunningLab, script: str, user: str = "") -> str:
    """Return the output of a script that succeeds on the sender."""
    result = on_sender(lab, script, user)
    assert result.code == 0, result
    return result.stdout


def is_pristine(lab: RunningLab) -> bool:
    """Return whether main.cf and master.cf are Debian's."""
    files = "for name in main.cf master.cf; do cmp /etc/postfix/$name /usr/share/mailstack-debian/$name; done"
    return on_sender(lab, f"set -e; {files}").code == 0 and not by_hand.edited(lab, lab.services())


# ── as Debian leaves it ────────────────────────────────────────────────────────────────────────────────────────────


def test_main_cf_and_master_cf_are_debian_s_with_its_answers(lab: RunningLab) -> None:
    assert is_pristine(lab)
    shown = dict(line.split(" =", 1) for line in done(lab, "postconf -n").splitlines())
    values = {name: value.strip() for name, value in shown.items()}
    expected = {
        "myhostname": "sender.example.com",
        "myorigin": "/etc/mailname",
        "mydestination": "$myhostname, example.com, sender.example.com, localhost.example.com, localhost",
        "inet_interfaces": "all",
        "relayhost": "",
        "smtp_tls_security_level": "may",
        "smtpd_tls_cert_file": "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        "smtpd_tls_key_file": "/etc/ssl/private/ssl-cert-snakeoil.key",
    }
    assert {name: values.get(name) for name in expected} == expected
    assert "# See /usr/share/postfix/main.cf.dist" in done(lab, "cat /etc/postfix/main.cf")
    assert done(lab, "cat /etc/mailname") == "example.com\n"
    assert on_sender(lab, "ls /etc/postfix/sasl_passwd /run/relay/sasl_passwd").stdout == ""


def test_the_certificate_is_self_signed_and_made_at_the_start_of_the_machine(lab: RunningLab) -> None:
    names = done(lab, "openssl x509 -noout -subject -issuer -in /etc/ssl/certs/ssl-cert-snakeoil.pem").splitlines()
    assert {name.partition("=")[2] for name in names} == {"CN=sender.example.com"}
    key = "/etc/ssl/private/ssl-cert-snakeoil.key"
    assert done(lab, f"stat -L -c '%a %U' {key}; stat -f -L -c %T {key}").split() == ["600", "root", "tmpfs"]


@pytest.mark.parametrize("kind", ["hash", "lmdb", "btree"])
def test_the_maps_of_the_course_and_of_today_are_there(lab: RunningLab, kind: str) -> None:
    script = f"cd /tmp && echo 'key value' > map && postmap {kind}:/tmp/map && postmap -q key {kind}:/tmp/map"
    assert done(lab, script, user="student") == "value\n"


def test_newaliases_works(lab: RunningLab) -> None:
    done(lab, "echo 'root: student' >> /etc/aliases; newaliases")
    assert done(lab, "postalias -q root hash:/etc/aliases") == "student\n"
    assert run(["up", "-n", lab.name, "--reset"]).code == 0
    assert is_pristine(lab)


# ── what it may do ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_has_one_capability_more_and_everything_else_as_ever(lab: RunningLab) -> None:
    attributes = docker.from_env().containers.get(lab.service("sender").container).attrs
    host = attributes["HostConfig"]
    given = {name.removeprefix("CAP_") for name in host["CapAdd"]}
    assert (host["CapDrop"], given) == (["ALL"], {"DAC_OVERRIDE", "SETGID", "SETUID", "SYS_CHROOT"})
    assert host["ReadonlyRootfs"] and not host["Privileged"] and "no-new-privileges:true" in host["SecurityOpt"]
    assert "NoNewPrivs:\t1" in done(lab, "cat /proc/1/status")


def test_debian_s_services_are_shut_in_the_queue_directory_and_need_a_capability_for_it(
    lab: RunningLab, labs: Labs, tmp_path: Path
) -> None:
    for service in ("pickup", "cleanup", "smtp"):
        assert done(lab, f"postconf -M {service}/unix").split()[4] == "y"
    overlay = tmp_path / "without.yaml"
    overlay.write_text("services: {sender: {cap_add: !override [DAC_OVERRIDE, SETGID, SETUID]}}\n")
    name = labs.new_name("shut")
    lab_up.up(engines.here(), lab_up.Request(name, (overlay,), blank=True), lambda _: None)
    without = RunningLab(name, engines.here())
    refused = "fatal: chroot(/var/spool/postfix): Operation not permitted"
    assert without.engine.prints(without.service("sender").container, refused, 10)
    assert refused not in done(lab, "cat /var/log/mail.log")
    labs.down(name)


def test_it_relays_for_itself_alone(lab: RunningLab) -> None:
    # By its address on the network, it is a stranger to itself.
    swaks = "swaks --server $(hostname -i) --helo a.test --from '<>' --to a@outside.test --quit-after RCPT"
    assert "454 4.7.1 <a@outside.test>: Relay access denied" in on_sender(lab, swaks).stdout


def test_checks_and_commands_work_on_it(lab: RunningLab) -> None:
    outcome = run(["check", "-n", lab.name, "exposure", "closed", "smuggling"])
    assert outcome.code == 0, outcome.out
    assert "the sender is configured by hand (up --blank)" in outcome.out
    for words in (["status", "--probe"], ["queue"], ["explain", "--all"], ["logs"]):
        outcome = run([*words, "-n", lab.name])
        assert (outcome.code, outcome.messages) == (0, []), outcome


def test_a_relay_password_that_is_rotated_is_left_to_the_student(lab: RunningLab) -> None:
    before = run(["secrets", "reveal", "-n", lab.name, "relay", "--login"]).out
    assert "write it there by hand" in run(["secrets", "rotate", "-n", lab.name]).out
    after = run(["secrets", "reveal", "-n", lab.name, "relay", "--login"]).out
    assert after != before and re.fullmatch(r"relay-[0-9a-f]{8}:\S+\n", after)
    assert on_sender(lab, "ls /run/relay/sasl_passwd").code != 0


# ── what is edited ─────────────────────────────────────────────────────────────────────────────────────────────────


CONFIGURED = r"""
postconf -e 'mydestination = localhost' 'relayhost = [postfix]:587' smtp_sasl_auth_enable=yes \
    smtp_sasl_security_options=noanonymous smtp_sasl_password_maps=KIND:/etc/postfix/sasl_passwd \
    smtp_tls_CAfile=/run/ca.pem
echo '[postfix]:587 somebody:wrong' > /etc/postfix/sasl_passwd
chmod 600 /etc/postfix/sasl_passwd
postmap KIND:/etc/postfix/sasl_passwd
service postfix restart
"""


@pytest.mark.parametrize("kind", ["hash", "lmdb"])
def test_a_wrong_password_in_the_student_s_own_map_is_repaired_by_the_command_that_is_named(
    lab: RunningLab, kind: str
) -> None:
    done(lab, CONFIGURED.replace("KIND", kind))
    mail = f"echo Hello. | mail -s Hello -a 'Message-ID: <{kind}@example.com>' bob@example.com"
    done(lab, mail, user="student")
    done(lab, "timeout 10 sh -c 'until grep \" 535 5.7.8 \" /var/log/mail.log; do sleep 0.05; done'")
    explained = json.loads(run(["explain", "-n", lab.name, "--json"]).out)
    (found,), repair = explained["failures"], explained["mail"]["repair"]
    assert (found["id"], repair["value"]) == ("wrong-password", f"{kind}:/etc/postfix/sasl_passwd")
    done(lab, repair["command"])
    done(lab, "timeout 10 sh -c 'until grep \"to=<bob.* status=sent\" /var/log/mail.log; do sleep 0.05; done'")
    assert "\ndelivered to bob@example.com in " in run(["trace", "-n", lab.name, f"{kind}@example.com"]).out
    assert run(["check", "-n", lab.name, "relay", "closed"]).code == 0
    assert run(["up", "-n", lab.name, "--reset"]).code == 0


def test_edits_are_kept_by_up_with_and_without_the_option_and_undone_by_reset(lab: RunningLab) -> None:
    done(lab, "postconf -e 'relayhost = [postfix]:587'")
    for words in ([], ["--blank"]):
        outcome = run(["up", "-n", lab.name, *words])
        assert outcome.code == 0 and "changed by hand, and kept: sender: /etc/postfix/main.cf" in outcome.err
        assert done(lab, "postconf -h relayhost") == "[postfix]:587\n"
    assert run(["up", "-n", lab.name, "--reset"]).code == 0
    assert is_pristine(lab)


def test_up_without_blank_makes_an_ordinary_sender_and_back(lab: RunningLab) -> None:
    outcome = run(["up", "-n", lab.name, "--no-blank", "--json"])
    assert outcome.code == 0 and '"blank": false' in outcome.out and '"relayed": {' in outcome.out
    assert done(lab, "postconf -h relayhost") == "[postfix]:587\n"
    assert run(["up", "-n", lab.name, "--blank"]).code == 0
    assert is_pristine(lab)
