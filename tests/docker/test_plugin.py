"""The pytest plugin: suites that are really run, by pytest, on a real lab."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from mailstack import state
from mailstack.engine import Engine
from mailstack.files import passwords
from mailstack.model import Deadline
from mailstack.running import RunningLab
from mailstack.secret import runtime_directory
from tests.docker.conftest import Labs

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.docker

DOCUMENT = Path(__file__).parents[2] / "docs" / "pytest.md"

# Where the installed metadata are older than the entry point.
INSTALLED = bool(metadata.entry_points(group="pytest11", name="mailstack"))
PLUGIN = [] if INSTALLED else ["-p", "mailstack.plugin"]

Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("plugin") as lab:
        yield lab


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs a suite in a process of its own, as its author would."""

    def run(source: str, *options: str, conftest: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_suite=textwrap.dedent(source))
        if conftest:
            pytester.makeconftest(textwrap.dedent(conftest))
        return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *options, timeout=120)

    return run


@pytest.fixture
def on_lab(run: Run, lab: RunningLab) -> Run:
    """The same on the lab that these tests share."""
    return lambda source, *options, **more: run(source, "--mailstack-name", lab.name, *options, **more)


def test_what_an_application_sends_is_received_and_read(on_lab: Run) -> None:
    result = on_lab(
        """
        import re
        import smtplib
        from email.message import EmailMessage

        import pytest
        from mailstack.testing import Mailbox, Message, SmtpSettings


        def order(to):
            mail = EmailMessage()
            mail["From"], mail["To"], mail["Subject"] = "Shop <shop@example.com>", to, "Your order – 12 €"
            mail["Message-ID"] = "<order-12.%s>" % to
            mail.set_content("Your code is 123456. See https://shop.example/orders/12?a=1&b=2.\\n")
            mail.add_alternative(
                '<p>Your code is 123456</p><a href="https://shop.example/track?x=1&amp;y=2">Track</a>', subtype="html"
            )
            mail.add_attachment(b"a;b\\n1;2\\n", maintype="text", subtype="csv", filename="order.csv")
            return mail


        def test_order(mailbox: Mailbox, smtp_settings: SmtpSettings) -> None:
            # As smtplib alone does it, with the lab's CA.
            with smtplib.SMTP(smtp_settings.host, smtp_settings.port) as session:
                session.starttls(context=smtp_settings.context())
                session.login(smtp_settings.user, smtp_settings.password)
                session.send_message(order(mailbox.address))
            message = mailbox.wait_for_message(subject="your order", sender="shop@example.com", to=mailbox.address)
            assert isinstance(message, Message)
            assert message.subject == "Your order – 12 €" and message.sender == "shop@example.com"
            assert message.to == [mailbox.address] and message.message_id == f"<order-12.{mailbox.address}>"
            assert message.code() == "123456" and message.code(r"code is (\\d+)") == "123456"
            assert message.links() == ["https://shop.example/track?x=1&y=2", "https://shop.example/orders/12?a=1&b=2"]
            assert message.link("orders") == "https://shop.example/orders/12?a=1&b=2"
            assert message.attachment("order.csv").content == message.attachment().content == b"a;b\\n1;2\\n"
            assert message.headers["subject"] == message.subject and len(message.headers.all("Received")) >= 1
            assert message.raw.startswith(b"Return-Path: <shop@example.com>") and "<p>" in message.html
            journey = message.journey()
            assert journey.status == "delivered" and [hop.service for hop in journey.hops] == ["postfix"]
            assert journey.settled
            with pytest.raises(AssertionError, match="there are: https://shop.example/track"):
                message.link("login")


        def test_waits(mailbox, mailbox_factory, smtp_settings):
            other = mailbox_factory("other")
            mailbox.assert_no_message(within=0.1)
            with smtp_settings.connect() as session:
                session.send_message(order(mailbox.address))
                session.send_message(order(other.address))
                session.send_message(order(mailbox.address))
            first, second = mailbox.wait_for_messages(2, matching=lambda message: "123456" in message.text)
            assert [message.uid for message in mailbox.messages()] == [first.uid, second.uid]
            assert mailbox.wait_for_message(after=first) is second
            assert mailbox.wait_for_message(subject=re.compile("order . 12")) is first
            mailbox.assert_no_message(within=0.1, after=second)
            with pytest.raises(AssertionError, match="should come to"):
                mailbox.assert_no_message(subject="order")
            assert len(other.messages()) == 1 or other.wait_for_message()
            mailbox.clear()
            assert mailbox.messages() == [] and first.subject
            mailbox.assert_no_message(within=0.1)
            with mailbox.smtp.connect() as session:  # as its own user
                mail = order(other.address)
                session.send_message(mail, from_addr=mailbox.address)
        """,
        "-W",
        "error",
    )
    result.assert_outcomes(passed=2)


SEND = """
    import pytest
    from email.message import EmailMessage

    def send(settings, to, subject, sender="shop@example.com"):
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = sender, to, subject
        mail["Message-ID"] = f"<{subject.replace(' ', '-')}.{to}>"
        mail.set_content("Dear customer,\\nhere is what you wanted.\\n")
        with settings.connect() as session:
            session.send_message(mail)
"""


def test_no_test_sees_another_s_mail(on_lab: Run) -> None:
    result = on_lab(
        SEND
        + """
    @pytest.fixture(scope="session")
    def known():
        return []

    @pytest.mark.parametrize("number", range(5))
    def test_own(number, known, mailbox, smtp_settings):
        assert mailbox.address not in [box.address for box in known]
        for other in known:
            send(smtp_settings, other.address, "late")
        known.append(mailbox)
        send(smtp_settings, mailbox.address, f"number {number}")
        assert mailbox.wait_for_message().subject == f"number {number}"
        assert len(mailbox.messages()) == 1
"""
    )
    result.assert_outcomes(passed=5)


def test_a_wait_in_vain_tells_what_came_instead_why_it_waits_and_its_journey(
    on_lab: Run, lab: RunningLab, tmp_path: Path
) -> None:
    result = on_lab(
        SEND
        + """
    def test_reset(mailbox, smtp_settings):
        send(smtp_settings, mailbox.address, "Invoice 7", sender="billing@example.com")
        send(smtp_settings, mailbox.address, "Welcome")
        mailbox.wait_for_messages(2)
        import smtplib
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(smtp_settings, "x" + mailbox.address, "Password reset")
        mailbox.wait_for_message(subject="Password reset", sender="shop@example.com", timeout=0.3)

    def test_wrapped(mailbox):
        try:
            mailbox.wait_for_message(timeout=0.1)
        except AssertionError as error:
            raise RuntimeError("the shop is broken") from error
""",
        "--showlocals",
        "--mailstack-artifacts",
        str(tmp_path / "kept"),
    )
    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*no mail with the subject “Password reset” from shop@example.com came to reset-* within 300 ms",
            "*2 came instead, the nearest first:",
            "*<Message 2: “Welcome” from shop@example.com to reset-*@example.com>",
            "*subject: “Welcome”, not “Password reset”",
            "*sender: as wanted",
            "*<Message 1: “Invoice 7” from billing@example.com to reset-*@example.com>",
            "*sender: billing@example.com, not shop@example.com",
            "*- mailstack: the mailbox of reset-*@example.com -*",
            "*here is what you wanted.",
            "*- mailstack: the queues -*",
            "*they are empty*",
            "*- mailstack: journeys of mails for reset-*@example.com -*",
            "<Invoice-7.reset-*@example.com> from billing@example.com: delivered to reset-*@example.com in *",
            "*sent to reset-*@example.com*",
            "*- mailstack: the last lines of dovecot -*",
            "*Invoice-7.reset-*saved mail to INBOX*",
            "*- mailstack: the last lines of postfix -*",
            "*status=sent*",
        ]
    )
    assert "refused by postfix" in shown and "5.1.1" in shown  # the mail with the wrong address
    assert "no server has heard of a mail for it" in shown  # of the second test
    texts = [shown, *(path.read_text() for path in (tmp_path / "kept").rglob("*.*") if path.is_file())]
    secrets = [password.reveal() for password in passwords(lab.directory.files).values()]
    assert len(texts) > 10 and not [value for value in secrets for text in texts if value in text]
    (kept,) = (tmp_path / "kept").glob("*test_reset*")
    files = {path.name for path in kept.iterdir()}
    assert {"postfix.log", "dovecot.log", "sender.log", "1.eml", "2.eml", "journeys.json", "the queues.txt"} <= files
    journeys = json.loads((kept / "journeys.json").read_text())
    assert "delivered" in {journey["status"] for journey in journeys}
    assert b"here is what you wanted" in (kept / "1.eml").read_bytes()


def test_workers_share_one_lab_and_nothing_is_left(run: Run) -> None:
    result = run(
        SEND
        + """
    import os, pathlib

    @pytest.mark.parametrize("number", range(8))
    def test_own(number, mailbox, smtp_settings, mailstack_lab, request):
        send(smtp_settings, mailbox.address, f"number {number}")
        assert mailbox.wait_for_message().subject == f"number {number}"
        path = pathlib.Path(__file__).with_name(f"seen-{request.config.workerinput['workerid']}")
        path.write_text(mailstack_lab.name)
""",
        "-n",
        "2",
    )
    result.assert_outcomes(passed=8)
    seen = [path.read_text() for path in Path.cwd().glob("seen-*")]
    assert len(seen) == 2 and len(set(seen)) == 1 and seen[0].startswith("pytest-")
    nothing_is_left(seen[0])


def nothing_is_left(lab: str) -> None:
    """At once, or when the guard that has taken the lab down for the last worker has ended."""
    deadline = Deadline.after(15)
    while left := [*Engine().leftovers(lab, state.owner()), *runtime_directory().glob(f"{lab}*")]:
        assert not deadline.passed(), left
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_run_that_is_killed_leaves_nothing(pytester: pytest.Pytester, workers: list[str]) -> None:
    pytester.makepyfile(
        """
        import pathlib, threading, pytest

        @pytest.mark.parametrize("number", range(2))
        def test_endless(number, mailbox, mailstack_lab):
            pathlib.Path("ready.tmp").write_text(mailstack_lab.name)
            pathlib.Path("ready.tmp").rename("ready")
            threading.Event().wait()
        """
    )
    words = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", *workers]
    process = subprocess.Popen(words, cwd=pytester.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready, deadline = pytester.path / "ready", Deadline.after(60)
        while not ready.exists():
            assert process.poll() is None and not deadline.passed()
            time.sleep(0.02)
        lab = ready.read_text()
        assert len(RunningLab(lab).services()) == 3
    finally:
        process.kill()
        process.wait()
    nothing_is_left(lab)


def test_decisions_are_fixtures_and_a_lab_can_be_kept(run: Run, labs: Labs) -> None:
    source = (
        SEND
        + """
    def test_own(mailbox, mailbox_factory, smtp_settings, mailstack_lab, mailstack_checks):
        import time
        assert 800 < int(mailstack_lab.state.expires) - time.time() <= 900
        shop = mailbox_factory("Kundin Nr. 1", domain="shop.test")
        assert shop.address.startswith("kundin-nr-1-") and shop.address.endswith("@shop.test")
        send(smtp_settings, shop.address, "hello", sender="noreply@shop.test")
        shop.wait_for_message(sender="noreply@shop.test")
        assert {result.verdict for result in mailstack_checks("tls")} == {"pass"}
        with pytest.raises(AssertionError, match="came to .* within 50 ms"):
            mailbox.wait_for_message()
        pytest.fail(mailstack_lab.name)
"""
    )
    conftest = """
    import pathlib, pytest

    @pytest.fixture(scope="session")
    def mailstack_ttl():
        return 900

    @pytest.fixture(scope="session")
    def mailstack_patience():
        return 0.05

    @pytest.fixture(scope="session")
    def mailstack_overlays(tmp_path_factory):
        overlay = tmp_path_factory.mktemp("lab") / "shop.yaml"
        overlay.write_text("x-mailstack: {domains: {shop.test: {}}}")
        return [overlay]
    """
    result = run(source, "--mailstack-keep", conftest=conftest)
    result.assert_outcomes(failed=1)
    (name,) = set(re.findall(r"Failed: (pytest-\w+)", result.stdout.str()))
    assert [service.state for service in RunningLab(name).services()] == ["running"] * 3
    labs.take_over(name)
    labs.down(name)


def test_a_lab_that_is_used_by_its_name_is_left_as_it_was(on_lab: Run, lab: RunningLab) -> None:
    before = lab.definition.addresses()
    on_lab("def test_it(mailbox): assert mailbox.messages() == []").assert_outcomes(passed=1)
    assert lab.definition.addresses() == before and len(lab.services()) == 3


def test_a_lab_that_is_not_there_is_an_error_of_usage(run: Run) -> None:
    result = run("def test_it(mailbox): pass", "--mailstack-name", "nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: mailstack: there is no lab “nowhere”*"])
    assert "Traceback" not in result.stderr.str()


def test_what_mailstack_has_to_say_comes_without_a_traceback(run: Run) -> None:
    result = run(
        "def test_it(mailbox): pass",
        conftest="""
    import pytest

    @pytest.fixture(scope="session")
    def mailstack_overlays():
        return ["/nowhere.yaml"]
    """,
    )
    result.assert_outcomes(errors=1)
    assert "/nowhere.yaml" in result.stdout.str() and "Traceback" not in result.stdout.str()
    assert "plugin.py" not in result.stdout.str()


def examples() -> list[tuple[str, str]]:
    """The Python of the document: (file, source); a block begins with its file's name."""
    blocks = re.findall(r"```python\n(# (?:.*/)?(\w+\.py)\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [(name, source) for source, name in blocks]


def test_the_examples_of_the_document_are_tests_that_pass(pytester: pytest.Pytester, run: Run) -> None:
    found = examples()
    assert len(found) >= 4 and "```python\n" not in re.sub(r"```python\n# ", "", DOCUMENT.read_text())
    for name, source in found:
        pytester.path.joinpath(name).write_text(source)
    count = sum(len(re.findall(r"^def test_", source, re.MULTILINE)) for _, source in found)
    run("", "-W", "error").assert_outcomes(passed=count)


# The last one on the shared lab: Postfix answers 454 once when its Dovecot was started again.
def test_a_wait_in_vain_tells_why_the_queue_has_not_delivered_it(on_lab: Run) -> None:
    result = on_lab(
        SEND
        + '''
    @pytest.fixture
    def dovecot(mailstack_lab):
        """Stops Dovecot until the test is over."""
        engine, container = mailstack_lab.engine, mailstack_lab.service("dovecot").container
        yield lambda: engine.stop(container, seconds=5)
        engine.start(container)

    def test_queue(mailbox, smtp_settings, dovecot):
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "shop@example.com", mailbox.address, "Welcome"
        mail["Message-ID"] = "<welcome@example.com>"
        with smtp_settings.connect() as session:
            dovecot()
            session.send_message(mail)
        mailbox.wait_for_message(subject="Welcome", timeout=1)
'''
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the mailbox of queue-*@example.com cannot be looked into: IMAP at 127.0.0.1:* cannot be reached: *",
            "*- mailstack: the queues -*",
            "* in postfix, deferred for *, next try in *: from shop@example.com to",
            "    queue-*@example.com: *backend*",
            "*- mailstack: journeys of mails for queue-*@example.com -*",
            "<welcome@example.com> from shop@example.com: waiting in postfix for queue-*@example.com: *backend*",
            "*not sent to queue-*@example.com: to be tried again",
            "remedy: *",
            "*- mailstack: the last lines of dovecot -*",
            "it is not running: exited",
            "*- mailstack: the last lines of postfix -*",
            "*status=deferred*",
        ]
    )
