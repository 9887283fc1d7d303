"""Verdicts on TLS: as the client of the provider, and as a server of this machine."""

from __future__ import annotations

from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import Finding, setting

CA_FILE = "/run/relay/ca-certificates.crt"
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
    if level in ("may", "encrypt"):
        return Finding(shown, note=f"“{level}” does not insist on a verified certificate; “secure” does")
    return Finding(shown)


def authorities(facts: Facts) -> Finding:
    """Judge whether the provider's certificate can be verified."""
    value = facts.setting("smtp_tls_CAfile") or facts.setting("smtp_tls_CApath")
    if facts.trusts_provider:
        return Finding(value)
    remedy = setting(f"smtp_tls_CAfile = {CA_FILE}")
    if not value:
        return Finding("", "no CA is known: nobody can tell whether the server is the provider's", remedy)
    if not facts.ca_count:
        return Finding(value, "there are no certificates of CAs: the provider's certificate cannot be verified", remedy)
    problem = f"the CA of the provider's certificate is not among the {facts.ca_count} there: it cannot be verified"
    return Finding(value, problem, remedy)


def certificate(facts: Facts) -> Finding:
    """Judge the certificate of the machine's own server."""
    shown = facts.server.certificate
    if not shown:
        return Finding("", "the server of this machine has no certificate, and so no TLS", setting(_CHAIN))
    return Finding(shown, facts.server.problem, setting(_CHAIN) if facts.server.problem else "")


def key(facts: Facts) -> Finding:
    """Judge the key of the machine's own server: it is the certificate's."""
    shown = facts.server.key
    if not shown:
        return Finding("", "the server of this machine has no key, and so no TLS", setting(_CHAIN))
    return Finding(shown, facts.server.problem, setting(_CHAIN) if facts.server.problem else "")


def server_level(facts: Facts) -> Finding:
    """Judge whether the machine's own server offers TLS."""
    level = facts.server_tls
    if level in ("may", "encrypt"):
        return Finding(level)
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
    return Finding(value)
