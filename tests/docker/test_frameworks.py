"""Django and Flask, unmodified, send mail over TLS with the settings of the plugin."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.lab.running import RunningLab
from tests.docker.conftest import Labs
from tests.docker.suites import Run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.docker

DOCUMENT = Path(__file__).parents[2] / "docs" / "pytest.md"

# Django's test runner puts a backend in memory in the place of the real one, and pytest-django does as it does.
CONFTEST = """
import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from django.test.utils import setup_test_environment

def pytest_configure():
    django_settings.configure()
    setup_test_environment()

@pytest.fixture
def settings():
    with override_settings():
        yield django_settings

"""


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("frameworks") as lab:
        yield lab


def conftest() -> str:
    """Return the document's conftest.py for Django."""
    (block,) = re.findall(r"```text\n(@pytest\.fixture.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return CONFTEST + textwrap.dedent(block)


def test_django_sends_with_what_the_document_says_and_verifies_the_lab_s_certificate(on_lab: Run) -> None:
    result = on_lab(
        """
        import ssl
        import pytest
        from django.core.mail import send_mail

        def test_send_mail(mailbox):
            assert send_mail("Welcome", "Your code is 314159.", "shop@example.com", [mailbox.address]) == 1
            message = mailbox.wait_for_message(subject="Welcome", sender="shop@example.com")
            assert message.code() == "314159"
            assert "with ESMTPSA" in message.headers.all("Received")[-1]  # RFC 3848: TLS and AUTH

        def test_without_the_lab_s_authority_it_sends_nothing(mailbox, monkeypatch):
            monkeypatch.delenv("SSL_CERT_FILE")
            with pytest.raises(ssl.SSLCertVerificationError):
                send_mail("Welcome", "hello", "shop@example.com", [mailbox.address])
            mailbox.assert_no_message(within=0)
        """,
        conftest=conftest(),
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("library", "send"),
    [
        ("flask_mail", "mail.send(Message('Welcome', [to], 'Your code is 314159.', sender='shop@example.com'))"),
        ("flask_mailman", "EmailMessage('Welcome', 'Your code is 314159.', 'shop@example.com', [to]).send()"),
    ],
)
def test_flask_sends_with_the_settings_as_its_configuration(on_lab: Run, library: str, send: str) -> None:
    result = on_lab(
        f"""
        import flask
        from {library} import *
        from {library} import Mail

        def test_send(mailbox, smtp_settings):
            app = flask.Flask("shop")
            app.config.update(smtp_settings.flask(), TESTING=True, MAIL_SUPPRESS_SEND=False, MAIL_BACKEND="smtp")
            mail, to = Mail(app), mailbox.address
            with app.app_context():
                {send}
            message = mailbox.wait_for_message(subject="Welcome", sender="shop@example.com")
            assert message.code() == "314159"
            assert "with ESMTPSA" in message.headers.all("Received")[-1]
        """
    )
    result.assert_outcomes(passed=1)
