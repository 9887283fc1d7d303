"""Labs with wrong certificates, open sockets or a way out, and the checks that each turns red."""

from __future__ import annotations

from mailstack.model import SERVICES
from tests.docker.red import Broken, Case
from tests.docker.red.changes import PROVIDER, certificates, everywhere, for_each, network_outside, public_ca

CASES = (
    Case(
        "tls",
        (
            Broken(
                "Postfix takes TLS 1.0, and has no need of a certificate",
                {
                    **for_each([f"tls.old-{name}" for name in PROVIDER[:3]], r"^the server agreed to TLSv1"),
                    **for_each(
                        [f"tls.anonymous-{name}" for name in PROVIDER[:3]], r"^the server agreed to (ADH|AECDH)-"
                    ),
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
                    **for_each([f"tls.old-{name}" for name in PROVIDER[3:]], r"^the server agreed to TLSv1"),
                    **for_each(
                        [f"tls.anonymous-{name}" for name in PROVIDER[3:]], r"^the server agreed to (ADH|AECDH)-"
                    ),
                },
                dovecot="ssl_min_protocol = TLSv1\nssl_cipher_list = ALL:@SECLEVEL=0",
            ),
            Broken(
                "certificates last for two months, Postfix's has not its name, and Dovecot's has another besides",
                {
                    **for_each(
                        [f"tls.verified-{name}" for name in PROVIDER[:3]],
                        r"^not verified for the name postfix: .*[Hh]ostname mismatch",
                    ),
                    **for_each(
                        [f"tls.verified-{name}" for name in PROVIDER[3:]], r"accepted for another name, another\.test"
                    ),
                    **for_each(["tls.lifetime-postfix", "tls.lifetime-dovecot"], r"^from 20\d\d-.* to 20\d\d-"),
                },
                before=certificates(
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
                    **for_each([f"tls.untrusted-{name}" for name in PROVIDER], r"does not know the lab's CA accepted"),
                    **for_each([f"tls.verified-{name}" for name in PROVIDER], r"CERTIFICATE_VERIFY_FAILED"),
                },
                after=public_ca,
            ),
            Broken(
                "LMTP and SASL are open to all who reach Dovecot's address",
                {"exposure.ports": r"^listening on the network, but not published: dovecot:24, dovecot:12345$"},
                dovecot="service lmtp {\n inet_listener lmtp {\n port = 24\n }\n}\n"
                "service auth {\n inet_listener sasl {\n port = 12345\n }\n}",
            ),
            Broken(
                "the sender has the sockets of LMTP and SASL, too",
                {"exposure.sockets": r"^PROJECT_sockets is also mounted by sender$"},
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
                for_each(
                    [f"closed.no-way-out-{name}" for name in SERVICES],
                    r"reached \d+\.\d+\.\d+\.\d+:2525 on the network PROJECT-outside$",
                ),
                compose={
                    **everywhere({"networks": {"outside": {}}}),
                    "networks": {"outside": {"external": True, "name": "PROJECT-outside"}},
                },
                before=network_outside,
            ),
            Broken(
                "packets live long enough for a router to pass them on",
                for_each(
                    [f"closed.no-forwarding-{name}" for name in SERVICES],
                    r"^there is a default route, and packets have a TTL of 64",
                ),
                compose=everywhere({"sysctls": {"net.ipv4.ip_default_ttl": 64}}),
            ),
            Broken(
                "there is somebody to ask for outside names",
                for_each([f"closed.names-{name}" for name in SERVICES], r"^code 0 after .* 192\.0\.2\.1 "),
                compose=everywhere({"extra_hosts": {"outside.test": "192.0.2.1"}}),
            ),
            Broken(
                "a port is published for everybody",
                {"closed.loopback": r"^published on other addresses: 0\.0\.0\.0:\d+"},
                compose={"services": {"postfix": {"ports": ["0.0.0.0::25"]}}},
            ),
        ),
        green=("closed.submission", "delivery.one-copy"),
    ),
)
