"""The sender is a machine: Postfix is a service on it, its log a file, and its configuration stays as it was edited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mailstack.actions import sending
from mailstack.errors import MailstackError
from mailstack.lab import by_hand
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline, Result
from tests.docker.bad import run
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab whose sender is worked on; each test leaves a Postfix that works."""
    with labs.one("machine") as running:
        yield running


def on_sender(lab: RunningLab, script: str, user: str = "") -> Result:
    """Run a shell script on the sender."""
    return lab.engine.execute(lab.service("sender").container, ["sh", "-c", script], user=user)


def done(lab: RunningLab, script: str, user: str = "") -> str:
    """Return the output of a script that succeeds on the sender."""
    result = on_sender(lab, script, user)
    assert result.code == 0, result
    return result.stdout + result.stderr


def sends(lab: RunningLab) -> None:
    """Raise unless a mail of the student arrives."""
    letter = sending.letter(lab.definition(), "student@example.com", ["bob@example.com"], "Works", "It works.", [])
    sending.send(lab, letter, "sender", Deadline.after(10))


def started_at(lab: RunningLab) -> str:
    """Return when the sender's container was started."""
    attributes = docker.from_env().containers.get(lab.service("sender").container).attrs
    return str(attributes["State"]["StartedAt"])


# ── Postfix is a service ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", ["service postfix", "postfix"])
def test_postfix_is_stopped_and_started_and_the_machine_stays(lab: RunningLab, command: str) -> None:
    before = started_at(lab)
    done(lab, f"{command} stop")
    assert on_sender(lab, "service postfix status").code != 0
    assert on_sender(lab, "healthcheck").code != 0
    done(lab, f"{command} start")
    assert "is running" in done(lab, f"{command} status")
    sends(lab)
    assert started_at(lab) == before


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_the_service_is_restarted_or_reloaded_and_the_log_says_so(lab: RunningLab, verb: str) -> None:
    before = len(done(lab, "cat /var/log/mail.log"))
    done(lab, f"service postfix {verb}")
    sends(lab)
    said = {"restart": ("terminating on signal 15", "daemon started -- version"), "reload": ("reload -- version",)}
    added = done(lab, "cat /var/log/mail.log")[before:]
    assert [text for text in said[verb] if text not in added] == []


def test_a_sighup_to_the_container_reloads_postfix_as_it_does_in_the_providers(lab: RunningLab) -> None:
    lab.engine.signal(lab.service("sender").container, "SIGHUP")
    done(
        lab, "timeout 5 sh -c 'until tail -n 1 /var/log/mail.log | grep -q \"reload -- version\"; do sleep 0.05; done'"
    )
    sends(lab)


def test_mail_that_is_handed_over_while_postfix_is_stopped_is_sent_when_it_starts(lab: RunningLab) -> None:
    done(lab, "service postfix stop")
    mail = "echo 'It waits.' | mail -s 'Waits' -a 'Message-ID: <waits@example.com>' bob@example.com"
    done(lab, mail, user="student")
    done(lab, "service postfix start")
    assert run(["trace", "-n", lab.name, "waits@example.com", "-f", "--timeout", "30s"]).code == 0


def test_processes_whose_parent_has_ended_are_collected(lab: RunningLab) -> None:
    # The wait ends with the orphan's entry in proc(5).
    orphan = done(lab, "sh -c 'sleep 0.01 & echo $!'").strip()
    done(lab, f"timeout 5 sh -c 'while [ -e /proc/{orphan} ]; do sleep 0.05; done'")


def test_a_mistake_in_the_definition_ends_the_container_and_up_says_so(labs: Labs, tmp_path: Path) -> None:
    overlay = tmp_path / "mistake.yaml"
    overlay.write_text("x-mailstack: {settings: {sender: {inet_interfaces: 192.0.2.1}}}\n")
    with pytest.raises(MailstackError) as caught:
        labs.up(labs.new_name("mistaken"), [overlay])
    assert "192.0.2.1" in caught.value.details


# ── the log ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_file_has_the_lines_that_mailstack_logs_shows(lab: RunningLab) -> None:
    sends(lab)
    shown = [line.partition(" | ")[2] for line in run(["logs", "-n", lab.name, "sender"]).out.splitlines()]
    assert done(lab, "cat /var/log/mail.log", user="student").splitlines() == shown
    assert any(" sender postfix/smtp[" in line and " status=sent " in line for line in shown)


def test_lines_of_other_programs_are_in_the_log_without_control_characters(lab: RunningLab) -> None:
    done(lab, "logger -t lesson -p mail.info \"$(printf 'one\\033[2Jtwo')\"", user="student")
    assert " sender lesson: one?[2Jtwo\n" in done(lab, "cat /var/log/mail.log")


def test_the_log_file_is_bounded(lab: RunningLab) -> None:
    # 10 MB, in lines of a kilobyte.
    done(lab, "yes $(printf %01000d 0) | head -10000 | logger -t filler -p mail.info")
    assert int(done(lab, "cat /var/log/mail.log* | wc -c")) < 9 << 20
    sends(lab)


# ── what is edited ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def edited(lab: RunningLab) -> Iterator[RunningLab]:
    """Yield the lab with an edited main.cf and a map of the student's own; both are undone afterwards."""
    done(lab, "postconf -e 'maximal_queue_lifetime = 2d'; echo '[a]:25 b:c' > /etc/postfix/sasl_passwd")
    try:
        yield lab
    finally:
        assert run(["up", "-n", lab.name, "--reset"]).code == 0


FILES = ["/etc/postfix/main.cf", "/etc/postfix/sasl_passwd"]


def lifetime(lab: RunningLab) -> str:
    """Return the edited setting's value."""
    return done(lab, "postconf -h maximal_queue_lifetime").strip()


def test_edits_survive_a_restart_of_service_and_container_and_up_names_them(edited: RunningLab) -> None:
    done(edited, "service postfix restart")
    docker.from_env().containers.get(edited.service("sender").container).restart()
    assert by_hand.edited(edited, edited.services()) == {"sender": FILES}
    outcome = run(["up", "-n", edited.name])
    assert f"changed by hand, and kept: sender: {', '.join(FILES)};" in outcome.err
    assert lifetime(edited) == "2d"
    sends(edited)


def test_edits_survive_the_container_and_a_change_of_the_definition(edited: RunningLab, tmp_path: Path) -> None:
    overlay = tmp_path / "changed.yaml"
    overlay.write_text("services: {sender: {environment: {NEW: container}}}\n")
    before = edited.service("sender").container
    outcome = run(["up", "-n", edited.name, "-f", str(overlay)])
    assert outcome.code == 0 and FILES[0] in outcome.err
    assert edited.service("sender").container != before
    assert lifetime(edited) == "2d"


def test_reset_undoes_edits_and_status_names_them_until_then(edited: RunningLab) -> None:
    assert all(f"sender: {path}" in run(["status", "-n", edited.name]).out for path in FILES)
    outcome = run(["up", "-n", edited.name, "--reset"])
    assert outcome.code == 0
    assert lifetime(edited) == "1d"
    assert "by hand" not in run(["status", "-n", edited.name]).out
    assert by_hand.edited(edited, edited.services()) == {}


def test_a_configuration_that_was_broken_by_hand_keeps_the_machine_for_its_repair(lab: RunningLab) -> None:
    before = done(lab, "cat /etc/postfix/main.cf")
    done(lab, "echo 'inet_interfaces = 192.0.2.1' >> /etc/postfix/main.cf")
    docker.from_env().containers.get(lab.service("sender").container).restart()
    assert lab.engine.prints(lab.service("sender").container, "init[1]: Postfix ended with code 1", 10)
    assert by_hand.edited(lab, lab.services()) == {"sender": FILES[:1]}
    repaired = lab.engine.execute(
        lab.service("sender").container, ["sh", "-c", "cat > /etc/postfix/main.cf"], input=before.encode()
    )
    assert repaired.code == 0
    done(lab, "service postfix start")
    assert by_hand.edited(lab, lab.services()) == {}
    sends(lab)
