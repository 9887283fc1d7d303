"""Labs that break mails on their way, and the checks that each turns red."""

from __future__ import annotations

from tests.docker.red import Broken, Case
from tests.docker.red.changes import for_each

CASES = (
    Case(
        "other-mechanisms",
        (
            Broken(
                "passwords do not hold with LOGIN",
                {"auth.login-587": r"^535 5\.7\.8 ", "auth.login-465": r"^535 5\.7\.8 "},
                dovecot="protocol smtp {\n passdb passwd-file {\n mechanisms_filter = plain\n }\n}",
            ),
            Broken(
                "a user has two copies of everything",
                {
                    **for_each(
                        ["delivery.one-copy", "delivery.from-outside"], r"^2 copies of \w+ for bob@example\.com$"
                    ),
                    "delivery.plus": r"^2 copies of \w+ for bob@example\.com$",
                    "delivery.list-alias": r"'bob@example\.com': 2",
                    **for_each(
                        [f"delivery.{name}" for name in ("null-sender", "dots", "attachment", "bcc")],
                        r"^2 copies of \w+ for bob@example\.com$",
                    ),
                },
                postfix={
                    "recipient_bcc_maps": "regexp:{ {/^(bob|bob[+]detail|team)@example.com/ bob+again@example.com} }"
                },
            ),
            Broken(
                "unknown users are accepted, to be bounced later",
                {"delivery.unknown-25": r"^250 2\.1\.5", "delivery.unknown-587": r"^250 2\.1\.5"},
                postfix={"smtpd_reject_unlisted_recipient": "no"},
            ),
            Broken(
                "bare newlines end lines",
                for_each(
                    [f"smuggling.{how}-{where}" for how in ("data", "bdat") for where in (25, 587, 465, "sender")],
                    r"^LF \. LF: 250 .* queued as \w+ \| (250 2\.1\.0|connection closed)",
                ),
                postfix={"smtpd_forbid_bare_newline": "no"},
                # As it is by default: programs of the machine itself are exempt.
                sender={"smtpd_forbid_bare_newline_exclusions": "127.0.0.1/32"},
            ),
            Broken(
                "there is no limit to a mail's size",
                {"delivery.over-limit": r"^EHLO says SIZE ; the lab's limit is 10485760"},
                postfix={"message_size_limit": "0"},
            ),
            Broken(
                "what cannot be delivered at once is bounced",
                {"queue.dovecot-stopped": r"^\w+ is not (deferred|in the queue of postfix)|^after the flush: 0 copies"},
                postfix={"maximal_queue_lifetime": "0"},
            ),
        ),
        green=("auth.plain-587", "auth.plain-465", "delivery.alias", "delivery.special-use"),
    ),
    Case(
        "changed",
        (
            Broken(
                "there are no aliases",
                {
                    "delivery.alias": r"^RCPT TO:<info@example\.com>: 550 5\.1\.1 ",
                    "delivery.catch-all": r"^RCPT TO:<nobody@example\.org>: 550 5\.1\.1 ",
                },
                postfix={"virtual_alias_maps": ""},
            ),
            Broken(
                "somebody reads along",
                {"delivery.several": r"'student@example\.com': 1"},
                postfix={"recipient_bcc_maps": "regexp:{ {/^(bob|carol)@example/ student@example.com} }"},
            ),
            Broken(
                "a header tells who gets a blind copy",
                {"delivery.bcc": r"discloses carol@example\.org in X-Envelope-To"},
                postfix={"header_checks": "regexp:{ {/^Subject:/ PREPEND X-Envelope-To: carol@example.org} }"},
            ),
            Broken(
                "what is announced does not work",
                {
                    **for_each(
                        [f"delivery.announced-{where}" for where in (25, 587, 465, "sender")], r"; ETRN: \d{3} "
                    ),
                    "delivery.receipt": r"^EHLO offers no DSN: ",
                },
                postfix={"smtpd_discard_ehlo_keywords": "dsn"},
                sender={"smtpd_discard_ehlo_keywords": ""},
            ),
            Broken(
                "bounces are refused",
                {"delivery.null-sender": r"^RCPT TO:<bob@example\.com>: 554 5\.7\.1 <>: Sender address rejected"},
                postfix={"smtp/inet/smtpd_sender_restrictions": "check_sender_access,inline:{<>=REJECT}"},
            ),
            Broken(
                "mail for outside comes back, and nobody is told why",
                {
                    "closed.submission": r"^550 5\.4\.4 <someone@outside\.test>: .*: go away$",
                    "closed.sender": r"^the bounce does not give the reason: ",
                },
                postfix={"default_transport": "error:5.4.4 go away"},
            ),
            Broken(
                "8-bit text is encoded anew on its way",
                {"delivery.utf-8": r"^8-bit text: sent \d+ bytes \w+, got \d+ \w+$"},
                postfix={"lmtp_discard_lhlo_keywords": "8bitmime"},
            ),
            Broken(
                "long lines are broken",
                {"delivery.long-lines": r"^5 lines of 998: sent 5000 bytes \w+, got 50\d\d "},
                postfix={"lmtp_line_length_limit": "500"},
            ),
            Broken(
                "a filter changes what it should not",
                {
                    "delivery.dots": r"^dots: sent \d+ bytes \w+, got \d+ ",
                    "delivery.attachment": r"^sent 65536 bytes \w+, got \d+ ",
                },
                postfix={"body_checks": "regexp:{ {/^[.][.][.]/ REPLACE ..}, {/^AAECAwQF/ REPLACE AAECAwQE} }"},
            ),
            Broken(
                "the limit to a mail's size is lower than the definition's",
                {"delivery.under-limit": r"^after the message: 552 5\.3\.4 "},
                postfix={"message_size_limit": "1048576"},
            ),
            Broken(
                "what is submitted on 465 is refused",
                {"delivery.one-copy-465": r"^RCPT TO:<bob@example\.com>: 554 5\.7\.1 "},
                postfix={"submissions/inet/smtpd_client_restrictions": "reject"},
            ),
        ),
        green=("delivery.one-copy", "smuggling.bdat-587", "smuggling.data-sender", "auth.imap-login"),
    ),
)
