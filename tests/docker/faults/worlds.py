"""The labs in which failures are caused: most of them side by side, each for a domain of its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from mailstack.config import pki

# Names of the provider, for each of which the sender goes about it in another way.
_NAMES = ("plain", "wrong", "other", "unknown", "expired", "nobody-logged-in", "old")

# Servers of the world outside, played by a few lines of Perl on the sender's loopback: what large providers say.
APPLICATIONS, NO_TLS, NO_COMMON, HANGS_UP = 2534, 2535, 2536, 2537
PROVIDERS = rf"""
use IO::Select; use IO::Socket::INET;
my @listening = grep {{ $_ }} map {{ IO::Socket::INET->new(LocalAddr => "127.0.0.1:$_", Listen => 5, ReuseAddr => 1) }}
    {APPLICATIONS}, {NO_TLS}, {NO_COMMON}, {HANGS_UP};
exit if !@listening || fork;
open $_, "+<", "/dev/null" for \*STDIN, \*STDOUT, \*STDERR;
my %offered = ({NO_COMMON} => "XOAUTH2");
my $select = IO::Select->new(@listening);
while (1) {{
    for my $listener ($select->can_read) {{
        my $client = $listener->accept or next;
        my $port = $listener->sockport;
        my $offered = $offered{{$port}} || "LOGIN PLAIN";
        next if fork;
        print $client "220 smtp.provider.test ESMTP\r\n";
        while (<$client>) {{
            exit if $port == {HANGS_UP};
            if (/^EHLO/i) {{ print $client "250-smtp.provider.test\r\n250-AUTH $offered\r\n250 8BITMIME\r\n" }}
            elsif (/^AUTH/i) {{
                print $client "534-5.7.9 Application-specific password required. For more information, go to\r\n",
                    "534 5.7.9  https://support.provider.test/mail/?p=InvalidSecondFactor - psmtp\r\n";
            }}
            elsif (/^QUIT/i) {{ print $client "221 2.0.0 closing connection\r\n"; exit }}
            else {{ print $client "530 5.7.0 Authentication Required\r\n" }}
        }}
        exit;
    }}
}}
"""


def world(directory: Path) -> Path:
    """An overlay for a lab whose sender fails in a way of its own for each domain; its files go into `directory`."""
    unknown = pki.make({"postfix": ("postfix", "unknown.provider.test")})
    (directory / "unknown.pem").write_text(unknown.servers["postfix"].reveal())
    # A network with an address outside the private ranges, where nobody is at home: connections to it time out.
    subnet = f"198.18.{random.randrange(256)}.{8 * random.randrange(32)}"
    away = subnet.rpartition(".")[0] + f".{int(subnet.rpartition('.')[2]) + 6}"
    ways = {
        "refused.test": "[postfix]:2525",
        "away.test": f"[{away}]:587",
        "blocked.test": f"[{away}]:25",
        "unreachable.test": "[192.0.2.1]:587",
        "unresolved.test": "[nobody.provider.test]:587",
        "loop.test": "[127.0.0.1]:25",
        "mx.test": "[postfix]:25",
        "wrapped.test": "[postfix]:465",
        "plain.test": "[plain.provider.test]:587",
        "wrong.test": "[wrong.provider.test]:587",
        "other.test": "[other.provider.test]:587",
        "unknown.test": "[unknown.provider.test]:25",
        "nobody.test": "[nobody-logged-in.provider.test]:587",
        "old.test": "[old.provider.test]:587",
        "applications.test": f"[127.0.0.1]:{APPLICATIONS}",
        "no-tls.test": f"[127.0.0.1]:{NO_TLS}",
        "no-common.test": f"[127.0.0.1]:{NO_COMMON}",
        "hangs-up.test": f"[127.0.0.1]:{HANGS_UP}",
    }
    policies = {
        "[postfix]:25": "may",
        "[127.0.0.1]:25": "may",
        "[plain.provider.test]:587": "none",
        "[wrong.provider.test]:587": "encrypt",
        "[nobody-logged-in.provider.test]:587": "encrypt",
        "[old.provider.test]:587": "encrypt protocols=TLSv1.1",
        f"[127.0.0.1]:{APPLICATIONS}": "none",
        f"[127.0.0.1]:{NO_COMMON}": "none",
        f"[127.0.0.1]:{HANGS_UP}": "none",
    }
    credentials = {
        "[wrong.provider.test]:587": "alice@example.com:not-the-password",
        f"[127.0.0.1]:{APPLICATIONS}": "somebody:the-password-of-the-web-page",
        f"[127.0.0.1]:{NO_COMMON}": "somebody:the-password-of-the-web-page",
    }
    settings = {
        "sender": {
            **_PATIENT,
            "transport_maps": _inline({domain: f"smtp:{way}" for domain, way in ways.items()}),
            "smtp_tls_policy_maps": _inline(policies),
            "smtp_sasl_password_maps": f"lmdb:/run/relay/sasl_passwd, {_inline(credentials)}",
            "smtp_sasl_mechanism_filter": "plain, login",
            "mydestination": "localhost, own.test",
            "smtp_connect_timeout": "1s",
            "smtp_helo_timeout": "2s",
        },
        "postfix": {
            **_PATIENT,
            "smtp/inet/smtpd_tls_chain_files": "/run/mailstack/unknown.pem",
            "smtp/inet/smtpd_client_connection_count_limit": str(CONNECTIONS),
            "smtpd_client_event_limit_exceptions": "",
            "header_checks": "regexp:{ {/^To:.*ruled@/ REJECT no mail to this address} }",
            "smtpd_recipient_restrictions": "check_recipient_access "
            + _inline(
                {
                    "grey@example.com": "450 4.2.0 Greylisted, please come back in 300 seconds",
                    "held@example.com": "HOLD to be looked at",
                }
            ),
        },
        "dovecot": f"quota_storage_grace = 0\nprotocol lmtp {{\n lmtp_user_concurrency_limit = {DELIVERIES}\n}}",
    }
    return _written(
        directory / "world.json",
        {
            "x-mailstack": {
                "accounts": {
                    "dora@example.com": {"quota": "4K"},
                    **{f"{name}@example.com": {} for name in ("busy", "grey", "held", "ruled")},
                },
                "limits": {"message_size": "100K"},
                "settings": settings,
            },
            "services": {
                "postfix": {
                    "networks": {"mail": {"aliases": [f"{name}.provider.test" for name in _NAMES]}},
                    "volumes": [f"{directory}/unknown.pem:/run/mailstack/unknown.pem:ro"],
                },
                "sender": {"networks": {"away": {}}},
            },
            "networks": {"away": {"internal": True, "ipam": {"config": [{"subnet": f"{subnet}/29"}]}}},
        },
    )


def neglected(directory: Path) -> Path:
    """An overlay for a lab that was not looked after: a package is missing, a certificate old, a disk full."""
    expired = pki.make({"postfix": ("postfix", "expired.provider.test")}, days=0)
    (directory / "expired.pem").write_text(expired.servers["postfix"].reveal())
    (directory / "expired-ca.pem").write_text(expired.ca)
    return _written(
        directory / "neglected.json",
        {
            "x-mailstack": {
                "settings": {
                    "sender": {
                        **_PATIENT,
                        "transport_maps": _inline(
                            {"expired.test": "smtp:[expired.provider.test]:25", "full.test": "smtp:[postfix]:25"}
                        ),
                        "smtp_tls_policy_maps": _inline({"[postfix]:25": "may"}),
                    },
                    "postfix": {
                        **_PATIENT,
                        "smtp/inet/smtpd_tls_chain_files": "/run/mailstack/expired.pem",
                        "smtp/inet/queue_minfree": "1000000000000",
                        "submissions/inet/smtpd_tls_chain_files": "/run/mailstack/there-is-none.pem",
                    },
                }
            },
            "services": {
                "postfix": {
                    "networks": {"mail": {"aliases": ["expired.provider.test"]}},
                    "volumes": [f"{directory}/expired.pem:/run/mailstack/expired.pem:ro"],
                },
                "sender": {
                    "volumes": [f"{directory}/expired-ca.pem:/run/mailstack/expired-ca.pem:ro"],
                    # Over the plug-ins of Cyrus SASL, as if libsasl2-modules were not installed.
                    "tmpfs": ["/usr/lib/x86_64-linux-gnu/sasl2", "/usr/lib/aarch64-linux-gnu/sasl2"],
                },
            },
        },
    )


WORLDS = {"world": world, "neglected": neglected}

# Limits that a case comes up against, on purpose; others leave room.
CONNECTIONS = 5
DELIVERIES = 8  # as many as Postfix opens by itself: lmtp_destination_concurrency_limit in stack/postfix/main.cf

# What waits stays as it is for as long as it is looked at.
_PATIENT = {"queue_run_delay": "1h", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}


def _inline(table: dict[str, str]) -> str:
    """A Postfix table in main.cf itself (DATABASE_README, inline)."""
    return "inline:{ " + ", ".join(f"{{{key} = {value}}}" for key, value in table.items()) + " }"


def _written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML, too
    return path
