"""Suites that tests run with pytest in a separate process, as their authors would."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import pytest

# Where the installed metadata are older than the entry point.
INSTALLED = bool(metadata.entry_points(group="pytest11", name="mailstack"))
PLUGIN = [] if INSTALLED else ["-p", "mailstack.plugin"]

Run = Callable[..., pytest.RunResult]

# How most suites begin: what their application does.
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
