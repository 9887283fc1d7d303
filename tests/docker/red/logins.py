"""Labs whose log-ins are broken, and the checks that each turns red."""

from __future__ import annotations

from tests.docker.red import Broken, Case
from tests.docker.red.changes import for_each, readable_map, without_authority

CASES = (
    Case(
        "clear",
        (
            Broken(
                "587 offers AUTH before STARTTLS",
                {
                    "auth.starttls-first": r"in the clear offers: .*\bauth\b",
                    "auth.clear-refused": r"in the clear: 535 ",
                },
                postfix={"smtpd_tls_auth_only": "no", "submission/inet/smtpd_tls_security_level": "may"},
            ),
            Broken(
                "Dovecot takes passwords in the clear",
                {
                    "auth.imap-clear": r"CAPABILITY .*AUTH=PLAIN",
                    "auth.pop3-clear": r"\+OK.* (SASL PLAIN|USER)",
                },
                dovecot="auth_allow_cleartext = yes\nssl = yes",
            ),
            Broken(
                "port 25 has AUTH",
                {"auth.none-on-25": r"EHLO in the clear offers AUTH|EHLO under TLS offers AUTH"},
                postfix={"smtp/inet/smtpd_sasl_auth_enable": "yes"},
            ),
            Broken(
                "mail for two users is stuck in the queue",
                {
                    **for_each(
                        [
                            f"delivery.{name}"
                            for name in ("one-copy", "one-copy-465", "from-outside", "plus", "several")
                        ],
                        r"^not in the mailbox of bob@example\.com after 8 s$",
                    ),
                    "delivery.catch-all": r"^not in the mailbox of carol@example\.org after 8 s$",
                    "delivery.list-alias": r"^\w+ is still in Postfix's queue",
                },
                postfix={
                    "transport_maps": "inline:{bob@example.com=stuck:, carol@example.org=stuck:}",
                    "defer_transports": "stuck",
                },
            ),
        ),
        green=("auth.plain-587", "auth.forged-on-25", "delivery.alias"),
    ),
    Case(
        "open",
        (
            Broken(
                "submission trusts every network, and takes any sender",
                {
                    "auth.required-587": r"^250 2\.1\.5",
                    "auth.required-465": r"^250 2\.1\.5",
                    "auth.foreign-sender": r"as <bob@example\.com>: 250 2\.1\.5",
                    "relay.no-credentials": r"status=sent",
                },
                postfix={
                    "smtpd_sender_restrictions": "",
                    "submission/inet/smtpd_relay_restrictions": "permit_mynetworks,permit_sasl_authenticated,reject",
                    "submissions/inet/smtpd_relay_restrictions": "permit_mynetworks,permit_sasl_authenticated,reject",
                    "mynetworks": "0.0.0.0/0",
                },
            ),
            Broken(
                "the sender does not authenticate, and gets away with it",
                {"relay.mail-s": r"^postfix logged no “sasl_username=” for <.*>, only \[.*status=sent.*removed"},
                sender={"smtp_sasl_auth_enable": "no"},
            ),
            Broken(
                "port 25 lets anybody be anybody",
                {"auth.forged-on-25": r"without AUTH: 250 2\.1\.5"},
                postfix={"smtp/inet/smtpd_sender_restrictions": "permit"},
            ),
            Broken(
                "port 25 has no TLS",
                for_each([f"tls.{promise}-smtp" for promise in ("verified", "untrusted", "old")], r"^502 5\.5\.1 "),
                postfix={"smtp/inet/smtpd_tls_security_level": "none"},
            ),
            Broken(
                "an open relay (into the void)",
                {
                    "auth.no-relay-25": r"^250 2\.1\.5",
                    "closed.submission": r"^250 2\.1\.5",
                    "closed.sender": r"no bounce for <.*> in the mailbox of student@example\.com",
                },
                postfix={
                    "mynetworks": "0.0.0.0/0",
                    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
                    "default_transport": "discard:it is gone",
                },
            ),
        ),
        green=("auth.wrong-plain-587", "auth.clear-refused", "delivery.one-copy", "relay.map-private"),
    ),
    Case(
        "any-password",
        (
            Broken(
                "any password will do",
                {
                    **for_each(
                        [f"auth.wrong-{m}-{p}" for m in ("plain", "login") for p in (587, 465)], r"^235 2\.7\.0"
                    ),
                    "auth.unknown-user": r"^235 2\.7\.0",
                    "auth.imap-login": "a wrong password was accepted",
                    "auth.pop3-login": "a wrong password was accepted",
                },
                dovecot="passdb any {\n driver = static\n fields {\n nopassword = yes\n }\n}",
            ),
            Broken(
                "everybody has a mailbox, the relay's user too",
                {"auth.relay-user": r"^relay-[0-9a-f]+ can log in to a mailbox over IMAP$"},
                dovecot="userdb any {\n driver = static\n fields {\n uid = vmail\n gid = vmail\n }\n}",
            ),
            Broken(
                "users do not own their aliases",
                {"auth.own-alias": r"alice@example\.com as <info@example\.com>: 553 "},
                postfix={"smtpd_sender_login_maps": "regexp:{ {/^alice@/ alice@example.com} }"},
            ),
            Broken(
                "the mailbox has no folder for junk",
                {"delivery.special-use": r"^missing: \\Junk$"},
                dovecot="protocol imap {\n namespace inbox {\n mailbox Junk {\n special_use =\n }\n }\n}",
            ),
            Broken(
                "the mailbox has another quota",
                {"delivery.quota": r"of 1048576 KiB in use; the definition 102400 KiB"},
                dovecot="quota_storage_size = 1G",
            ),
        ),
        green=("auth.plain-587", "auth.foreign-sender", "delivery.one-copy"),
    ),
    Case(
        "mechanisms",
        (
            Broken(
                "passwords do not hold with PLAIN",
                {"auth.plain-587": r"^535 5\.7\.8 ", "auth.plain-465": r"^535 5\.7\.8 "},
                dovecot="protocol smtp {\n passdb passwd-file {\n mechanisms_filter = login\n }\n}",
            ),
            Broken(
                "POP3 has other passwords",
                {"auth.pop3-login": r"^the right password was refused: -ERR \[AUTH\]"},
                dovecot="protocol pop3 {\n passdb passwd-file {\n passwd_file_path = /dev/null\n }\n}",
            ),
            Broken(
                "the sender does not verify its provider",
                {
                    "relay.mail-s": "logged no verified TLS connection",
                    "relay.settings": r"(?m)^smtp_tls_CAfile = \S+: the CA of the provider's certificate is not among",
                },
                after=without_authority,
            ),
            Broken(
                "the sender gives up when its password is refused",
                {"relay.wrong-credentials": r"status=bounced .* 535 "},
                sender={"smtp_sasl_auth_soft_bounce": "no"},
            ),
            Broken(
                "everybody on the sender can read its credentials",
                {"relay.map-private": r"(?m)^644 root, 600 root, tmpfs$"},
                after=readable_map,
            ),
        ),
        green=("auth.login-587", "auth.login-465", "relay.no-credentials"),
    ),
)
