"""The table: every way in which the labs of these tests are broken, and the checks that each turns red."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mailstack import claims, compose, home, pki, state
from mailstack.files import SERVER_NAMES
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, PORTS, SERVICES
from mailstack.running import RunningLab
from mailstack.secret import write_private
from tests import engines
from tests.docker.red import Broken, Case

PROVIDER = [port.name for port in PORTS]


def _each(names: list[str], pattern: str) -> dict[str, str]:
    return dict.fromkeys(names, pattern)


# ── what is done to labs ───────────────────────────────────────────────────────────────────────────────────────────


def _certificates(names: Mapping[str, tuple[str, ...]], days: int) -> Callable[[str], None]:
    """Certificates of this kind, there before `up` would make its own: it keeps those that hold."""

    def prepare(name: str) -> None:
        directory = home.directory(engines.here(), name)
        directory.make()
        made = pki.make({**SERVER_NAMES, **names}, days=days)
        write_private(directory.files / "ca.pem", made.ca)
        for service, pem in made.servers.items():
            write_private(directory.files / f"{service}.pem", pem.reveal())

    return prepare


def _public_ca(lab: RunningLab, patch: pytest.MonkeyPatch) -> None:
    """The servers' certificates are by a CA that this machine trusts anyway, and the lab's CA is another."""
    public = lab.directory.path / "public-ca.pem"
    write_private(public, lab.ca_file.read_text())
    patch.setenv("SSL_CERT_FILE", str(public))  # where OpenSSL looks for the system's CAs
    write_private(lab.ca_file, pki.make({}).ca)


def _readable_map(lab: RunningLab, _: pytest.MonkeyPatch) -> None:
    done = lab.engine.execute(lab.service("sender").container, ["chmod", "0644", "/run/relay/sasl_passwd"])
    assert done.code == 0, done.stderr


def _network_outside(name: str) -> None:
    """The network on which the checks put their listener, so that an overlay can join the lab to it."""
    labels = {LABEL_LAB: name, LABEL_OWNER: state.owner(), LABEL_EXPIRES: "never"}
    assert claims.make_network(engines.here(), f"{compose.project_name(name)}-outside", labels)


def _everywhere(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change to every service of the lab."""
    return {"services": dict.fromkeys(SERVICES, change)}


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────

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
                    **_each(
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
                {"relay.mail-s": r"^postfix logged no “sasl_username=” for <.*>: \[.*status=sent.*removed"},
                sender={"smtp_sasl_auth_enable": "no"},
            ),
            Broken(
                "port 25 lets anybody be anybody",
                {"auth.forged-on-25": r"without AUTH: 250 2\.1\.5"},
                postfix={"smtp/inet/smtpd_sender_restrictions": "permit"},
            ),
            Broken(
                "port 25 has no TLS",
                _each([f"tls.{promise}-smtp" for promise in ("verified", "untrusted", "old")], r"^502 5\.5\.1 "),
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
                    **_each([f"auth.wrong-{m}-{p}" for m in ("plain", "login") for p in (587, 465)], r"^235 2\.7\.0"),
                    "auth.unknown-user": r"^235 2\.7\.0",
                    "auth.imap-login": "a wrong password was accepted",
                    "auth.pop3-login": "a wrong password was accepted",
                },
                dovecot="passdb any {\n driver = static\n fields {\n nopassword = yes\n }\n}",
            ),
            Broken(
                "everybody has a mailbox, the relay's user too",
                {"auth.relay-user": r"^relay-[0-9a-f]+ was let into a mailbox$"},
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
                {"delivery.quota": r"1048576\); the definition 102400 KiB"},
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
                {"auth.pop3-login": r"^the right password: -ERR \[AUTH\]"},
                dovecot="protocol pop3 {\n passdb passwd-file {\n passwd_file_path = /dev/null\n }\n}",
            ),
            Broken(
                "the sender does not verify its provider",
                {"relay.mail-s": "logged no verified TLS connection"},
                sender={"smtp_tls_security_level": "encrypt"},
            ),
            Broken(
                "the sender gives up when its password is refused",
                {"relay.wrong-credentials": r"status=bounced .* 535 "},
                sender={"smtp_sasl_auth_soft_bounce": "no"},
            ),
            Broken(
                "everybody on the sender can read its credentials",
                {"relay.map-private": r"^644 root, 600 root, tmpfs$"},
                after=_readable_map,
            ),
        ),
        green=("auth.login-587", "auth.login-465", "relay.no-credentials"),
    ),
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
                    **_each(["delivery.one-copy", "delivery.from-outside"], r"^2 copies of \w+ for bob@example\.com$"),
                    "delivery.plus": r"^2 copies of \w+ for bob@example\.com$",
                    "delivery.list-alias": r"'bob@example\.com': 2",
                    **_each(
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
                _each(
                    [f"smuggling.{how}-{where}" for how in ("data", "bdat") for where in (25, 587, 465, "sender")],
                    r"^LF \. LF: 250 .* queued as \w+ \| (250 2\.1\.0|and the server hangs up)",
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
                {"delivery.bcc": r"tells of carol@example\.org in \['X-Envelope-To'\]"},
                postfix={"header_checks": "regexp:{ {/^Subject:/ PREPEND X-Envelope-To: carol@example.org} }"},
            ),
            Broken(
                "what is announced does not work",
                {
                    **_each([f"delivery.announced-{where}" for where in (25, 587, 465, "sender")], r"; ETRN: \d{3} "),
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
                    "closed.sender": r"^the bounce does not say why: ",
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
    Case(
        "tls",
        (
            Broken(
                "Postfix takes TLS 1.0, and has no need of a certificate",
                {
                    **_each([f"tls.old-{name}" for name in PROVIDER[:3]], r"^the server agreed to TLSv1"),
                    **_each([f"tls.anonymous-{name}" for name in PROVIDER[:3]], r"^the server agreed to (ADH|AECDH)-"),
                },
                postfix={
                    "smtpd_tls_exclude_ciphers": "",
                    "smtpd_tls_protocols": ">=TLSv1",
                    "smtpd_tls_mandatory_protocols": ">=TLSv1",
                    "tls_medium_cipherlist": "ALL:@SECLEVEL=0",
                },
            ),
            Broken(
                "Dovecot takes TLS 1.0, and has no need of a certificate",
                {
                    **_each([f"tls.old-{name}" for name in PROVIDER[3:]], r"^the server agreed to TLSv1"),
                    **_each([f"tls.anonymous-{name}" for name in PROVIDER[3:]], r"^the server agreed to (ADH|AECDH)-"),
                },
                dovecot="ssl_min_protocol = TLSv1\nssl_cipher_list = ALL:@SECLEVEL=0",
            ),
            Broken(
                "certificates last for two months, Postfix's has not its name, and Dovecot's has another besides",
                {
                    **_each(
                        [f"tls.verified-{name}" for name in PROVIDER[:3]],
                        r"^by the name postfix: .*[Hh]ostname mismatch",
                    ),
                    **_each(
                        [f"tls.verified-{name}" for name in PROVIDER[3:]], r"accepted for another name, another\.test"
                    ),
                    **_each(["tls.lifetime-postfix", "tls.lifetime-dovecot"], r"^from 20\d\d-.* to 20\d\d-"),
                },
                before=_certificates(
                    {
                        "postfix": ("localhost", "127.0.0.1"),
                        "dovecot": ("dovecot", "localhost", "127.0.0.1", "another.test"),
                    },
                    days=60,
                ),
            ),
        ),
        green=("tls.untrusted-imaps", "auth.imap-clear", "auth.starttls-first"),
    ),
    Case(
        "public-ca",
        (
            Broken(
                "the certificates are by a CA that everybody trusts, and not by the lab's",
                {
                    **_each([f"tls.untrusted-{name}" for name in PROVIDER], r"does not know the lab's CA accepted"),
                    **_each([f"tls.verified-{name}" for name in PROVIDER], r"CERTIFICATE_VERIFY_FAILED"),
                },
                after=_public_ca,
            ),
            Broken(
                "LMTP and SASL are open to all who reach Dovecot's address",
                {"exposure.ports": r"^listens for the network, and is not published: dovecot:24, dovecot:12345$"},
                dovecot="service lmtp {\n inet_listener lmtp {\n port = 24\n }\n}\n"
                "service auth {\n inet_listener sasl {\n port = 12345\n }\n}",
            ),
            Broken(
                "the sender has the sockets of LMTP and SASL, too",
                {"exposure.sockets": r"^mailstack-LAB_sockets is mounted by sender, too$"},
                compose={"services": {"sender": {"volumes": ["sockets:/run/sockets"]}}},
            ),
        ),
        green=("tls.old-imaps", "tls.lifetime-postfix", "auth.imap-clear"),
    ),
    Case(
        "ways-out",
        (
            Broken(
                "the lab is on a network with others",
                _each(
                    [f"closed.no-way-out-{name}" for name in SERVICES],
                    r"reached \d+\.\d+\.\d+\.\d+:2525 on the network mailstack-LAB-outside$",
                ),
                compose={
                    **_everywhere({"networks": {"outside": {}}}),
                    "networks": {"outside": {"external": True, "name": "mailstack-LAB-outside"}},
                },
                before=_network_outside,
            ),
            Broken(
                "packets live long enough for a router to pass them on",
                _each(
                    [f"closed.no-forwarding-{name}" for name in SERVICES],
                    r"^a default route, and packets that live for 64",
                ),
                compose=_everywhere({"sysctls": {"net.ipv4.ip_default_ttl": 64}}),
            ),
            Broken(
                "there is somebody to ask for outside names",
                _each([f"closed.names-{name}" for name in SERVICES], r"^code 0 after .* 192\.0\.2\.1 "),
                compose=_everywhere({"extra_hosts": {"outside.test": "192.0.2.1"}}),
            ),
            Broken(
                "a port is published for everybody",
                {"closed.loopback": r"^published elsewhere: 0\.0\.0\.0:\d+"},
                compose={"services": {"postfix": {"ports": ["0.0.0.0::25"]}}},
            ),
        ),
        green=("closed.submission", "delivery.one-copy"),
    ),
)
