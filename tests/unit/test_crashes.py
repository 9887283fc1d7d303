"""A server process that ended during a delivery attempt is named by its own log, not as a lost connection."""

from __future__ import annotations

from mailstack.actions import tracing
from mailstack.trace.journey import Journey
from tests.unit.test_trace_text import text

# As logged in a lab whose Dovecot was stopped before a reload of Postfix.
NO_MECHANISMS = """\
2026-11-30T07:43:35.700Z Nov 30 07:43:35 sender postfix/pickup[27]: B2A9E17202F: uid=1000 from=<student@example.com>
2026-11-30T07:43:35.730Z Nov 30 07:43:35 sender postfix/cleanup[31]: B2A9E17202F: message-id=<one@example.com>
2026-11-30T07:43:35.740Z Nov 30 07:43:35 sender postfix/qmgr[28]: B2A9E17202F: from=<student@example.com>, size=328, nrcpt=1 (queue active)
2026-11-30T07:43:36.400Z Nov 30 07:43:36 postfix postfix/submission/smtpd[101]: warning: SASL: Connect to Dovecot auth socket '/run/sockets/sasl' failed: Connection refused
2026-11-30T07:43:36.410Z Nov 30 07:43:36 postfix postfix/submission/smtpd[101]: fatal: no SASL authentication mechanisms
2026-11-30T07:43:37.299Z Nov 30 07:43:37 sender postfix/smtp[33]: B2A9E17202F: to=<bob@example.com>, relay=postfix[10.213.124.98]:587, delay=1.6, delays=0.07/0/1.5/0, dsn=4.4.2, status=deferred (lost connection with postfix[10.213.124.98] while performing the EHLO handshake)
"""  # noqa: E501


def journey(log: str) -> Journey:
    """Return the journey of the mail in a log."""

    def read() -> list[tuple[str, str]]:
        return [("", line) for line in log.splitlines()]

    (found,) = tracing.traced(read, "one@example.com").journeys
    return found


def failure(log: str) -> str:
    """Return the id of the failure that keeps the mail in a log."""
    found = journey(log).failure
    assert found is not None
    return found.id


def test_a_server_without_its_authentication_service_is_named_as_that() -> None:
    assert failure(NO_MECHANISMS) == "authentication-unavailable"
    assert "fatal: no SASL authentication mechanisms" in text(journey(NO_MECHANISMS))


def test_a_crash_at_another_time_or_of_another_host_explains_nothing() -> None:
    assert failure(NO_MECHANISMS.replace("07:43:36.410Z", "07:40:36.410Z")) == "connection-lost"
    assert failure(NO_MECHANISMS.replace("postfix postfix/sub", "other postfix/sub")) == "connection-lost"


def test_a_client_that_ended_before_it_connected_is_named() -> None:
    own = NO_MECHANISMS.splitlines()[:3]
    fatal = own[-1].replace("qmgr[28]: ", "smtp[9]: fatal: specify a password table via the x; was ").split("; was")[0]
    log = "\n".join([*own, fatal])
    assert failure(log) == "no-password-map" and journey(log).status == "in-progress"


def test_a_crash_during_an_earlier_attempt_does_not_explain_the_last_one() -> None:
    last = NO_MECHANISMS.splitlines()[-1].replace("07:43:37", "07:45:37")
    assert failure(NO_MECHANISMS + last) == "connection-lost"
