"""The rows of the course's main.cf: verdict, reason and remedy of a setting follow from what is in effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailstack.checks.client import rows
from mailstack.checks.client.facts import Facts, Login, NextHop, PasswordMap, Server, password_maps, without_passwords
from mailstack.checks.client.observation import certificates, login_verdict, unread, with_files
from mailstack.model import Account, Alias, Domain, Lab

# A configuration by hand, in the course's spelling.
SETTINGS = {
    "myorigin": "example.com",
    "mydestination": "localhost",
    "mynetworks": "127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
    "relayhost": "[postfix]:587",
    "smtp_sasl_auth_enable": "yes",
    "smtp_sasl_security_options": "noanonymous",
    "smtp_sasl_tls_security_options": "noanonymous",
    "smtp_sasl_password_maps": "hash:/etc/postfix/sasl_passwd",
    "smtp_use_tls": "yes",
    "smtp_tls_wrappermode": "no",
    "smtp_tls_CAfile": "/etc/ssl/certs/ca-certificates.crt",
    "readme_directory": "no",
    "smtpd_use_tls": "yes",
    "data_directory": "/var/lib/postfix",
    "smtp_tls_session_cache_database": "btree:/var/lib/postfix/smtp_scache",
    "smtpd_tls_session_cache_database": "btree:/var/lib/postfix/smtpd_scache",
}
MAP = PasswordMap("hash", "/etc/postfix/sasl_passwd")
RIGHT = Facts(
    mailname="example.com",
    provider="postfix",
    student="student@example.com",
    domains=("example.com", "example.org"),
    user="mailstack secrets reveal student@example.com",
    settings=SETTINGS,
    types=frozenset(("hash", "btree", "lmdb", "texthash", "static", "inline")),
    origin="example.com",
    reaches_provider=True,
    addresses=("10.0.0.2",),
    maps=(MAP,),
    login=Login.ACCEPTED,
    login_user="student@example.com",
    key="[postfix]:587",
    ca_bundle="/etc/ssl/certs/ca-certificates.crt",
    ca_count=150,
    trusts_provider=True,
    server=Server("/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key"),
)


def having(facts: Facts = RIGHT, **settings: str) -> Facts:
    """Return facts with other settings in effect."""
    return replace(facts, settings={**facts.settings, **settings})


def wrong(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return setting → problem and remedy of the rows that are wrong."""
    found = {each.row.setting: each.finding for each in rows.judged(facts)}
    return {name: (finding.problem, finding.remedy) for name, finding in found.items() if finding.problem}


SPELLINGS = {
    "the course's": RIGHT,
    "the lab's own": having(smtp_tls_security_level="secure", smtp_use_tls="no", smtpd_tls_security_level="may"),
    "465 from the start": having(relayhost="[postfix]:465", smtp_tls_wrappermode="yes"),
    "a port by its name": having(relayhost="[postfix]:submission"),
    "texthash": replace(RIGHT, maps=(PasswordMap("texthash", "/root/p", index=True),)),
    "in main.cf": replace(RIGHT, maps=(PasswordMap("static", "student@example.com:secret"),)),
    "the machine's own address": having(mynetworks="127.0.0.1/32 10.0.0.2/32 !10.0.0.0/8 cidr:/etc/postfix/networks"),
    "the name is in a file": having(myorigin="/etc/mailname"),
}


@pytest.mark.parametrize("facts", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_that_leads_to_the_provider_is_right(facts: Facts) -> None:
    assert wrong(facts) == {}


# what is in effect, the rows that are wrong, and a part of the first one's reason and remedy
WRONG = {
    "no relayhost": (having(relayhost=""), "relayhost", "no relayhost", "'relayhost = [postfix]:587'"),
    "another host": (replace(RIGHT, reaches_provider=False), "relayhost", "is not the provider", "[postfix]:587"),
    "port 25": (having(relayhost="[postfix]:25"), "relayhost", "nobody can log in there", "[postfix]:587"),
    "port 2525": (having(relayhost="[postfix]:2525"), "relayhost", "no mail on port 2525", "[postfix]:587"),
    "no brackets": (having(relayhost="postfix:587"), "relayhost", "looks for the MX", "[postfix]:587"),
    "465": (having(relayhost="[postfix]:465"), "relayhost", "greeting in the clear", "smtp_tls_wrappermode = yes"),
    "587 wrapped": (having(smtp_tls_wrappermode="yes"), "relayhost", "expects TLS at once", "wrappermode = no"),
    "no login": (having(smtp_sasl_auth_enable="no"), "smtp_sasl_auth_enable", "does not log in", "auth_enable = yes"),
    "no PLAIN": (
        having(smtp_sasl_tls_security_options="noplaintext, noanonymous"),
        "smtp_sasl_security_options",
        "forbids PLAIN",
        "smtp_sasl_tls_security_options = noanonymous",
    ),
    "no map": (replace(RIGHT, maps=()), "smtp_sasl_password_maps", "no table of passwords", "hash:/etc/postfix/sasl"),
    "unknown type": (
        replace(RIGHT, maps=(PasswordMap("cdb", "/p"),)),
        "smtp_sasl_password_maps",
        "no tables of the type “cdb”",
        "hash:/p",
    ),
    "stale": (
        replace(RIGHT, maps=(replace(MAP, stale=True),)),
        "smtp_sasl_password_maps",
        "newer",
        "sudo postmap hash:",
    ),
    "exposed": (
        replace(RIGHT, maps=(replace(MAP, exposed="0644 root /etc/postfix/sasl_passwd"),)),
        "smtp_sasl_password_maps",
        "has the mode 0644 and belongs to root",
        "sudo chmod 600 /etc/postfix/sasl_passwd /etc/postfix/sasl_passwd.db",
    ),
    "no text": (
        replace(RIGHT, maps=(replace(MAP, text=False, index=False),)),
        "smtp_sasl_password_maps",
        "there is no /etc/postfix/sasl_passwd",
        "sudo nano /etc/postfix/sasl_passwd; sudo postmap hash:",
    ),
    "no entry": (replace(RIGHT, login=Login.MISSING), "sasl_passwd", "to the letter", "`[postfix]:587 USER:PASSWORD`"),
    "no such user": (replace(RIGHT, login=Login.UNKNOWN_USER), "sasl_passwd", "no user student@", "secrets reveal"),
    "may without a CA": (
        replace(RIGHT, trusts_provider=False),
        "smtp_tls_CAfile",
        "not among the 150",
        "CAfile = /run",
    ),
    "an empty CA file": (
        replace(RIGHT, trusts_provider=False, ca_count=0),
        "smtp_tls_CAfile",
        "no certificates of CAs",
        "sudo postconf",
    ),
    "a misspelt level": (having(smtp_tls_security_level="mya"), "smtp_use_tls", "no TLS level “mya”", "= secure"),
    "kept here": (
        having(mydestination="$myhostname, example.com, localhost"),
        "mydestination",
        "mail for example.com stays on this machine",
        "'mydestination = $myhostname, localhost'",
    ),
    "open to all": (having(mynetworks="static:all"), "mynetworks", "(an open relay)", "mynetworks = 127.0.0.0/8"),
    "open to a network": (having(mynetworks="10.0.0.0/24"), "mynetworks", "10.0.0.0/24", "mynetworks = "),
    "not read since": (replace(RIGHT, unread="/etc/postfix/main.cf"), "postfix", "after Postfix had read it", "reload"),
    "no certificate": (
        replace(RIGHT, server=Server()),
        "smtpd_tls_cert_file smtpd_tls_key_file",
        "no certificate",
        "smtpd_tls_chain_files",
    ),
    "no TLS as a server": (having(smtpd_use_tls="no"), "smtpd_use_tls", "offers no TLS", "smtpd_tls_security_level"),
    "no cache": (
        having(smtp_tls_session_cache_database="btree:/etc/postfix/scache"),
        "smtp_tls_session_cache_database",
        "not in the data directory",
        "btree:${data_directory}/smtp_scache",
    ),
}


@pytest.mark.parametrize(("facts", "named", "problem", "remedy"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_alone_with_its_reason_and_its_remedy(
    facts: Facts, named: str, problem: str, remedy: str
) -> None:
    found = wrong(facts)
    assert list(found) == named.split()
    first = next(iter(found.values()))
    assert problem in first[0]
    assert remedy in first[1]


@pytest.mark.parametrize(
    ("facts", "cause", "remedy"),
    [
        (
            replace(RIGHT, login=Login.MISSING, maps=(replace(MAP, index=False),)),
            "smtp_sasl_password_maps",
            "sudo postmap hash:/etc/postfix/sasl_passwd; sudo postfix reload",
        ),
        (
            replace(RIGHT, login=Login.WRONG_PASSWORD, maps=(replace(MAP, stale=True),)),
            "smtp_sasl_password_maps",
            "sudo postmap hash:/etc/postfix/sasl_passwd; sudo postfix reload",
        ),
        (
            replace(having(relayhost="postfix:587"), login=Login.MISSING),
            "relayhost",
            "sudo postconf 'relayhost = [postfix]:587'; sudo postfix reload",
        ),
    ],
    ids=["not hashed", "not hashed since", "no brackets"],
)
def test_a_password_that_another_mistake_hides_is_not_blamed(facts: Facts, cause: str, remedy: str) -> None:
    found = wrong(facts)
    assert list(found) == [cause, "sasl_passwd"]
    assert found["sasl_passwd"] == (f"cannot be judged before {cause} is right: see there", remedy)
    assert rows.report(rows.wrong(facts)).count(remedy) == 1


def test_while_the_configuration_cannot_be_read_only_that_is_judged() -> None:
    error = "/etc/postfix/main.cf, line 61: missing '=' after attribute name: \"relayhost\""
    found = wrong(replace(RIGHT, error=error, settings={}, running=False))
    assert list(found) == ["main.cf", "postfix"]
    assert "sudo nano +61 /etc/postfix/main.cf" in found["main.cf"][1]


def test_a_sender_without_any_setting_is_wrong_and_can_be_judged() -> None:
    found = wrong(Facts("example.com", "postfix"))
    assert {"relayhost", "smtp_sasl_auth_enable", "smtp_sasl_password_maps", "sasl_passwd", "smtp_use_tls"} <= set(
        found
    )
    assert all(problem and remedy for problem, remedy in found.values())


# Rows whose value in the course is described, and not spelt.
DESCRIBED = {"main.cf", "postfix", "myorigin", "mydestination", "relayhost", "sasl_passwd", "mynetworks"}


@pytest.mark.parametrize(
    "facts",
    [
        RIGHT,
        having(smtp_tls_security_level="may", smtpd_tls_security_level="may", smtp_tls_CAfile="/run/ca.pem"),
        having(smtp_tls_security_level="encrypt", smtpd_tls_security_level="encrypt", smtp_use_tls="no"),
        having(smtp_tls_security_level="secure", smtp_sasl_security_options="noanonymous, noplaintext"),
        replace(RIGHT, maps=(PasswordMap("lmdb", "/run/relay/p"),), server=Server("/run/x.pem", "/run/x.pem")),
        having(smtp_tls_session_cache_database="lmdb:/var/lib/postfix/other", smtp_tls_CAfile="", smtp_tls_CApath="/e"),
    ],
)
def test_a_value_of_another_spelling_than_the_course_s_says_why_it_passes(facts: Facts) -> None:
    for each in rows.judged(facts):
        assert not each.finding.problem, each
        if each.row.setting not in DESCRIBED and each.finding.value != each.row.original:
            assert len(each.finding.note.split()) > 2, each
    assert {each.row.setting for each in rows.judged(facts) if each.row.task} == DESCRIBED


def test_what_main_cf_sets_is_shown_without_passwords() -> None:
    text = "a = b\nsmtp_sasl_password_maps = static:me:s3cret, hash:/x\nldap_bind_pw = s3cret\nrelayhost = [p]:587"
    assert without_passwords(text) == (
        "a = b\nsmtp_sasl_password_maps = static:…\nldap_bind_pw = …\nrelayhost = [p]:587"
    )


def test_a_password_in_main_cf_is_not_shown() -> None:
    (table,) = password_maps("static:student@example.com:s3cret")
    assert "s3cret" not in str([each.json() for each in rows.judged(replace(RIGHT, maps=(table,)))])


def test_tables_of_a_list_are_told_apart() -> None:
    value = "proxy:hash:/a, lmdb:/b inline:{ {[postfix]:587 = user:pass word} } /c"
    assert [(each.type, each.path) for each in password_maps(value)] == [
        ("hash", "/a"),
        ("lmdb", "/b"),
        ("inline", "{ {[postfix]:587 = user:pass word} }"),
        ("hash", "/c"),
    ]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("[postfix]:587", ("postfix", 587, True)),
        ("postfix", ("postfix", 25, False)),
        ("[smtp.provider.test]:submissions", ("smtp.provider.test", 465, True)),
        ("", ("", 25, False)),
        ("[postfix:587", ("postfix", 587, True)),
    ],
)
def test_a_relayhost_has_a_host_a_port_and_brackets_or_not(value: str, parts: tuple[str, int, bool]) -> None:
    hop = NextHop.parse(value)
    assert (hop.host, hop.port, hop.brackets) == parts


def test_files_of_a_map_are_missing_stale_or_open_to_others() -> None:
    text, index = "/etc/postfix/sasl_passwd", "/etc/postfix/sasl_passwd.db"
    found = {text: ["200", "600", "root", text], index: ["100", "640", "root", index]}
    assert with_files(MAP, found) == replace(MAP, stale=True, exposed=f"0640 root {index}")
    assert with_files(MAP, {}) == replace(MAP, text=False, index=False)


LAB = Lab(
    "example.com",
    (Domain("example.com"),),
    (Account("alice@example.com"), Account("owner@example.com")),
    (Alias("student@example.com", ("owner@example.com",)),),
)
KNOWN = {"alice@example.com": "a", "owner@example.com": "o", "student@example.com": "s"}


@pytest.mark.parametrize(
    ("user", "password", "verdict"),
    [
        ("relay-1", "r", Login.ACCEPTED),
        ("relay-1", "x", Login.WRONG_PASSWORD),
        ("Student@Example.com", "s", Login.ACCEPTED),
        ("owner@example.com", "o", Login.ACCEPTED),
        ("alice@example.com", "a", Login.NOT_OWNER),
        ("alice", "a", Login.UNKNOWN_USER),
        ("", "", Login.UNKNOWN_USER),
    ],
)
def test_a_login_is_judged_as_the_provider_would(user: str, password: str, verdict: Login) -> None:
    assert login_verdict(LAB, user, password, KNOWN, ("relay-1", "r")) is verdict


@pytest.mark.parametrize(
    ("times", "file"),
    [
        ("100 read\n90 /etc/postfix/main.cf\n100 /etc/postfix/master.cf\n", ""),
        ("100 read\n101 /etc/postfix/main.cf\n90 /etc/postfix/master.cf\n", "/etc/postfix/main.cf"),
        ("100 read\n90 /etc/postfix/main.cf\n101 /etc/postfix/master.cf\n", "/etc/postfix/master.cf"),
        ("101 /etc/postfix/main.cf\n", ""),
        ("", ""),
    ],
)
def test_a_file_that_postfix_has_not_read_since_it_was_changed_is_named(times: str, file: str) -> None:
    assert unread(times) == file


def test_certificates_are_compared_by_their_bytes() -> None:
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    assert certificates(pem.format("QUJD\nREVG")) <= certificates(
        "# a CA\n" + pem.format("QUJDREVG") + pem.format("eA==")
    )
