"""Mails that never got into a queue end as that: refused by a rule, too large, or given up by their client."""

from __future__ import annotations

from mailstack import failures
from mailstack.actions import tracing
from mailstack.trace.journey import Journey

# As logged in a lab.
REFUSED_BY_A_RULE = """\
2026-11-30T04:45:46.776600000Z Nov 30 04:45:46 sender postfix/pickup[419]: C334E1B25CB: uid=1000 from=<student@example.com>
2026-11-30T04:45:46.777600000Z Nov 30 04:45:46 sender postfix/cleanup[438]: C334E1B25CB: message-id=<20261130044546.C334E1B25CB@sender.example.com>
2026-11-30T04:45:46.787600000Z Nov 30 04:45:46 sender postfix/qmgr[420]: C334E1B25CB: from=<student@example.com>, size=330, nrcpt=1 (queue active)
2026-11-30T04:45:46.910446127Z Nov 30 04:45:46 postfix postfix/submission/smtpd[325]: DDF7F1B2020: client=unknown[10.213.229.164], sasl_method=PLAIN, sasl_username=relay-b8d88379
2026-11-30T04:45:46.911537043Z Nov 30 04:45:46 postfix postfix/cleanup[330]: DDF7F1B2020: reject: header Subject: test from unknown[10.213.229.164]; from=<student@example.com> to=<bob@example.com> proto=ESMTP helo=<sender.example.com>: 5.7.1 no tests please
2026-11-30T04:45:46.911930832Z Nov 30 04:45:46 postfix postfix/cleanup[330]: DDF7F1B2020: removed (canceled)
2026-11-30T04:45:46.912600000Z Nov 30 04:45:46 sender postfix/smtp[440]: C334E1B25CB: to=<bob@example.com>, relay=postfix[10.213.229.163]:587, delay=0.12, delays=0.02/0/0.07/0.03, dsn=5.7.1, status=bounced (host postfix[10.213.229.163] said: 550 5.7.1 no tests please (in reply to end of DATA command))
2026-11-30T04:45:46.914600000Z Nov 30 04:45:46 sender postfix/cleanup[438]: DF7171B2030: message-id=<20261130044546.DF7171B2030@sender.example.com>
2026-11-30T04:45:46.915600000Z Nov 30 04:45:46 sender postfix/bounce[442]: C334E1B25CB: sender non-delivery notification: DF7171B2030
2026-11-30T04:45:46.915700000Z Nov 30 04:45:46 sender postfix/qmgr[420]: DF7171B2030: from=<>, size=2212, nrcpt=1 (queue active)
2026-11-30T04:45:46.916600000Z Nov 30 04:45:46 sender postfix/qmgr[420]: C334E1B25CB: removed
2026-11-30T04:45:46.968904246Z Nov 30 04:45:46 postfix postfix/submission/smtpd[325]: EC60F1B2020: client=unknown[10.213.229.164], sasl_method=PLAIN, sasl_username=relay-b8d88379
2026-11-30T04:45:46.969754331Z Nov 30 04:45:46 postfix postfix/cleanup[330]: EC60F1B2020: message-id=<20261130044546.DF7171B2030@sender.example.com>
2026-11-30T04:45:46.969923729Z Nov 30 04:45:46 postfix postfix/cleanup[330]: EC60F1B2020: reject: header Subject: test from unknown[10.213.229.164]; from=<> to=<student@example.com> proto=ESMTP helo=<sender.example.com>: 5.7.1 no tests please
2026-11-30T04:45:46.970064343Z Nov 30 04:45:46 postfix postfix/cleanup[330]: EC60F1B2020: removed (canceled)
2026-11-30T04:45:46.971064343Z Nov 30 04:45:46 sender postfix/smtp[440]: DF7171B2030: to=<student@example.com>, relay=postfix[10.213.229.163]:587, delay=0.06, delays=0/0/0.05/0, dsn=5.7.1, status=bounced (host postfix[10.213.229.163] said: 550 5.7.1 no tests please (in reply to end of DATA command))
2026-11-30T04:45:46.972064343Z Nov 30 04:45:46 sender postfix/qmgr[420]: DF7171B2030: removed
"""  # noqa: E501
CLIENT_GONE = """\
2026-11-30T04:48:40.990000000Z Nov 30 04:48:40 postfix postfix/smtpd[508]: connect from unknown[10.213.229.129]
2026-11-30T04:48:41.124000000Z Nov 30 04:48:41 postfix postfix/smtpd[508]: 1E7551B206E: client=unknown[10.213.229.129]
2026-11-30T04:48:41.334000000Z Nov 30 04:48:41 postfix postfix/smtpd[508]: 1E7551B206E: lost connection after DATA (54 bytes) from unknown[10.213.229.129]
2026-11-30T04:48:41.334100000Z Nov 30 04:48:41 postfix postfix/smtpd[508]: disconnect from unknown[10.213.229.129] ehlo=1 mail=1 rcpt=1 data=0/1 commands=3/4
2026-11-30T04:48:41.335000000Z Nov 30 04:48:41 postfix postfix/cleanup[514]: 1E7551B206E: message-id=<abc@example.net>
2026-11-30T04:48:41.335100000Z Nov 30 04:48:41 postfix postfix/cleanup[514]: 1E7551B206E: removed (canceled)
"""  # noqa: E501
TOO_LARGE = """\
2026-11-30T04:49:04.300000000Z Nov 30 04:49:04 postfix postfix/submission/smtpd[613]: 2B9501B2122: client=unknown[10.213.229.164]
2026-11-30T04:49:04.310000000Z Nov 30 04:49:04 postfix postfix/cleanup[629]: 2B9501B2122: message-id=<big@example.com>
2026-11-30T04:49:04.359003619Z Nov 30 04:49:04 postfix postfix/submission/smtpd[613]: warning: 2B9501B2122: queue file size limit exceeded
2026-11-30T04:49:04.822256046Z Nov 30 04:49:04 postfix postfix/cleanup[629]: warning: 2B9501B2122: queue file size limit exceeded
2026-11-30T04:49:04.822803422Z Nov 30 04:49:04 postfix postfix/cleanup[629]: 2B9501B2122: removed (canceled)
"""  # noqa: E501


def journeys(log: str, query: str | None = None) -> list[Journey]:
    """Return the journeys in a log that a query finds, or the latest."""
    return list(tracing.traced(lambda: (("", line) for line in log.splitlines()), query).journeys)


def test_a_mail_that_a_rule_for_its_header_refused_is_one_journey_with_the_rule_in_it() -> None:
    (journey,) = journeys(REFUSED_BY_A_RULE)
    assert journey.status == "bounced" and journey.missing == ()
    assert journey.sentence() == "bounced in sender for bob@example.com: 550 5.7.1 no tests please"
    assert "refused by a rule for its header: Subject: test" in [event.what for event in journey.events]


def test_a_mail_that_a_rule_refused_is_refused_where_the_client_has_no_log() -> None:
    log = "".join(line for line in REFUSED_BY_A_RULE.splitlines(True) if " DDF7F1B2020: " in line)
    (journey,) = journeys(log)
    assert (journey.status, journey.sender) == ("rejected", "student@example.com")
    assert journey.sentence() == "refused by postfix for bob@example.com: 5.7.1 no tests please"


def test_a_mail_whose_client_is_gone_in_its_data_is_aborted() -> None:
    (journey,) = journeys(CLIENT_GONE)
    assert journey.status == "aborted" and journey.settled and journey.missing == ()
    assert journey.sentence() == "aborted in postfix: the client hung up after DATA (54 bytes)"


def test_a_mail_that_outgrows_the_limit_in_its_data_is_refused_as_too_large() -> None:
    (journey,) = journeys(TOO_LARGE)
    assert journey.sentence() == "refused by postfix: larger than message_size_limit allows"
    assert journey.failure is not None and journey.failure.id == "too-large"


def test_the_warning_about_a_mail_that_is_too_large_is_a_known_failure() -> None:
    (line,) = [each for each in TOO_LARGE.splitlines() if "cleanup[629]: warning" in each]
    found = failures.recognise(line)
    assert found is not None and found.id == "too-large"


def test_what_a_stranger_writes_into_a_header_does_not_choose_the_reply_of_a_rule() -> None:
    forged = REFUSED_BY_A_RULE.replace(
        "header Subject: test", "header Subject: test from x[1]; from=<a@b.c> to=<d@e.f>: 5.1.1 other"
    )
    (journey,) = journeys(forged)
    assert [event.reply for event in journey.events if event.kind == "refused"] == ["5.7.1 no tests please"] * 2
