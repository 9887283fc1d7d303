"""Verdicts on TLS: as the client of the provider, and as a server of this machine."""

from __future__ import annotations

from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import Finding, setting

CA_FILE = "/run/relay/ca-certificates.crt"
COURSE_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
_CHAIN = "smtpd_tls_chain_files = /run/secrets/sender.pem"
_LEVELS = ("may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure")


def client_level(facts: Facts) -> Finding:
    """Judge whether mail and password go to the provider encrypted."""
    level = facts.client_tls
    spelling = "smtp_tls_security_level" if facts.setting("smtp_tls_security_level") else "smtp_use_tls"
    value = f"{facts.setting(spelling)} ({level})" if spelling == "smtp_use_tls" else level
    shown = value if spelling == "smtp_use_tls" else f"smtp_tls_security_level = {level}"
    if level == "none":
        problem = "TLS is off: the provider lets nobody log in in the clear"
        return Finding(shown, problem, setting("smtp_tls_security_level = secure"))
    if level not in _LEVELS:
        return Finding(shown, f"there is no TLS level “{level}”", setting("smtp_tls_security_level = secure"))
    return Finding(shown, note=_level_note(spelling, level))


def _level_note(spelling: str, level: str) -> str:
    """Return why a level passes beside the course's `smtp_use_tls = yes`."""
    lax = f"“{level}” does not insist on a verified certificate; “secure” does"
    if spelling == "smtp_use_tls":
        return lax
    counts = "smtp_tls_security_level is set, and counts in place of the older smtp_use_tls"
    if level == "may":
        return f"{counts}: “may” is the course's “yes”, TLS where the server offers it. {lax}"
    stricter = f"{counts}: “{level}” is stricter than the course's “yes”, without TLS it sends nothing"
    return f"{stricter}. {lax}" if level == "encrypt" else stricter


def authorities(facts: Facts) -> Finding:
    """Judge whether the provider's certificate can be verified."""
    value = facts.setting("smtp_tls_CAfile") or facts.setting("smtp_tls_CApath")
    if facts.trusts_provider:
        return Finding(value, note=_authorities_note(facts, value))
    remedy = setting(f"smtp_tls_CAfile = {CA_FILE}")
    if not value:
        return Finding("", "no CA is known: nobody can tell whether the server is the provider's", remedy)
    if not facts.ca_count:
        return Finding(value, "there are no certificates of CAs: the provider's certificate cannot be verified", remedy)
    problem = f"the CA of the provider's certificate is not among the {facts.ca_count} there: it cannot be verified"
    return Finding(value, problem, remedy)


def _authorities_note(facts: Facts, value: str) -> str:
    """Return why a file of CAs passes that is another one than the course's."""
    if value == COURSE_CA_FILE:
        return ""
    if facts.outside:
        return "there are certificates of CAs in it, as in the course's file"
    return (
        "the CA that signed the provider's certificate is in it. It is the lab's own CA: the course's file has only "
        "public ones, such as Gmail's"
    )


def certificate(facts: Facts) -> Finding:
    """Judge the certificate of the machine's own server."""
    shown = facts.server.certificate
    if not shown:
        return Finding("", "the server of this machine has no certificate, and so no TLS", setting(_CHAIN))
    return _half(facts, shown, "/etc/ssl/certs/ssl-cert-snakeoil.pem")


def _half(facts: Facts, shown: str, original: str) -> Finding:
    """Judge key and certificate together: each needs the other."""
    if facts.server.problem:
        return Finding(shown, facts.server.problem, setting(_CHAIN))
    note = "another file than the course's: the key in use belongs to the certificate in use"
    return Finding(shown, note="" if shown == original else note)


def key(facts: Facts) -> Finding:
    """Judge the key of the machine's own server: it is the certificate's."""
    shown = facts.server.key
    if not shown:
        return Finding("", "the server of this machine has no key, and so no TLS", setting(_CHAIN))
    return _half(facts, shown, "/etc/ssl/private/ssl-cert-snakeoil.key")


def server_level(facts: Facts) -> Finding:
    """Judge whether the machine's own server offers TLS."""
    level = facts.server_tls
    if level in ("may", "encrypt"):
        newer = facts.setting("smtpd_tls_security_level")
        value = f"smtpd_tls_security_level = {level}" if newer else f"{facts.setting('smtpd_use_tls')} ({level})"
        counts = "smtpd_tls_security_level is set, and counts in place of the older smtpd_use_tls: " if newer else ""
        means = "is the course's “yes”, TLS for clients that ask for it" if level == "may" else "requires TLS"
        return Finding(value, note=f"{counts}“{level}” {means}")
    return Finding(level, "the server of this machine offers no TLS", setting("smtpd_tls_security_level = may"))


def server_cache(facts: Facts) -> Finding:
    """Judge the cache of TLS sessions of the machine's own server."""
    return _cache(facts, "smtpd_tls_session_cache_database")


def client_cache(facts: Facts) -> Finding:
    """Judge the cache of TLS sessions of the client."""
    return _cache(facts, "smtp_tls_session_cache_database")


def _cache(facts: Facts, name: str) -> Finding:
    value = facts.setting(name)
    remedy = setting(f"{name} = btree:${{data_directory}}/{name.partition('_')[0]}_scache")
    if not value:
        return Finding("", "TLS sessions are not kept: each connection begins anew", remedy)
    type, _, path = value.partition(":")
    if type not in facts.types:
        return Finding(value, f"this Postfix has no tables of the type “{type}” (postconf -m)", remedy)
    directory = facts.setting("data_directory")
    if not path.startswith(f"{directory}/"):
        return Finding(value, f"it is not in the data directory ({directory}), where alone Postfix may write", remedy)
    original = f"btree:{directory}/{name.partition('_')[0]}_scache"
    means = f"${{data_directory}} is {directory}"
    return Finding(value, note=means if value == original else f"another table than the course's; {means}")
