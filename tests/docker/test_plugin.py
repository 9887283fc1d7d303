"""The pytest plugin on a real lab: suites as their authors write them, and their results."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions.accounts import Accounts
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from tests.docker.conftest import Labs
from tests.docker.suites import PLUGIN, SEND, Run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.docker

DOCUMENT = Path(__file__).parents[2] / "docs" / "pytest.md"


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("plugin") as lab:
        yield lab


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
            with pytest.raises(AssertionError, match="its links: https://shop.example/track"):
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
            with pytest.raises(AssertionError, match="expected no mail"):
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


def test_a_lab_that_is_used_by_its_name_is_left_as_it_was(on_lab: Run, lab: RunningLab) -> None:
    before = lab.definition().addresses()
    on_lab("def test_it(mailbox): assert mailbox.messages() == []").assert_outcomes(passed=1)
    assert lab.definition().addresses() == before and len(lab.services()) == 3


def test_what_a_killed_run_left_in_a_lab_of_another_the_next_one_removes(
    pytester: pytest.Pytester, on_lab: Run, lab: RunningLab
) -> None:
    before = lab.definition().addresses()
    pytester.makepyfile(
        test_killed="""
        import threading
        from pathlib import Path

        def test_endless(mailbox_factory):
            for _ in range(3):
                mailbox_factory("left")
            Path("ready").touch()
            threading.Event().wait()
        """
    )
    words = (*PLUGIN, "-p", "no:cacheprovider", "--mailstack-name", lab.name, "test_killed.py")
    short = "def test_it(mailbox): assert mailbox.messages() == []"
    with subprocess.Popen((sys.executable, "-m", "pytest", *words), cwd=pytester.path, stdout=-3, stderr=-3) as process:
        deadline = Deadline.after(60)
        while not (pytester.path / "ready").exists():
            assert process.poll() is None and not deadline.passed()
            time.sleep(0.02)
        on_lab(short, "test_suite.py").assert_outcomes(passed=1)
        assert len(lab.definition().addresses()) == len(before) + 3  # who lives keeps what is his
        process.kill()
    assert len(lab.definition().addresses()) == len(before) + 3
    on_lab(short, "test_suite.py").assert_outcomes(passed=1)
    assert lab.definition().addresses() == before


def test_accounts_that_were_to_be_kept_are_kept(on_lab: Run, lab: RunningLab) -> None:
    before = set(lab.definition().addresses())
    short = "def test_it(mailbox): assert mailbox.messages() == []"
    on_lab(short, "--mailstack-keep").assert_outcomes(passed=1)
    (kept,) = set(lab.definition().addresses()) - before
    on_lab(short).assert_outcomes(passed=1)
    assert set(lab.definition().addresses()) - before == {kept}
    with Accounts(lab) as accounts:
        accounts.remove(kept)


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
    """Return the Python examples of the document: (file, source). A block begins with the name of its file."""
    blocks = re.findall(r"```python\n(# (?:.*/)?(\w+\.py)\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [(name, source) for source, name in blocks]


def test_the_examples_of_the_document_are_tests_that_pass(pytester: pytest.Pytester, run: Run) -> None:
    found = examples()
    assert len(found) >= 4 and "```python\n" not in re.sub(r"```python\n# ", "", DOCUMENT.read_text())
    for name, source in found:
        pytester.path.joinpath(name).write_text(source)
    count = sum(len(re.findall(r"^def test_", source, re.MULTILINE)) for _, source in found)
    run("", "-W", "error").assert_outcomes(passed=count)
