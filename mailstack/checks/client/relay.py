"""Verdicts on where the machine hands its mail, and on whether it logs in there."""

from __future__ import annotations

import re

from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import Finding, setting


def relayhost(facts: Facts) -> Finding:
    """Judge whether mail goes to the provider, and by a port that takes it."""
    value = facts.setting("relayhost")
    right = f"[{facts.provider}]:{facts.port}"
    remedy = setting(f"relayhost = {right}")
    hop = facts.next_hop
    if not value:
        return Finding("", "no relayhost: this machine looks for each recipient's own server (end to end)", remedy)
    if not facts.reaches_provider:
        return Finding(value, f"{hop.host or value} is not the provider, which is {facts.provider}", remedy)
    if not hop.brackets:
        problem = f"without brackets, Postfix looks for the MX of “{hop.host}”, and not for the host of this name"
        return Finding(value, problem, remedy)
    return _port(facts, value, remedy)


def _port(facts: Facts, value: str, remedy: str) -> Finding:
    """Judge the port of relayhost: 587 with STARTTLS, or 465 with TLS from the start."""
    port, wrapped = facts.next_hop.port, facts.setting("smtp_tls_wrappermode") == "yes"
    if port == 465 and not wrapped:
        problem = (
            "port 465 speaks TLS from the start, and Postfix waits for a greeting in the clear: "
            "smtp_tls_wrappermode = no"
        )
        also = setting("smtp_tls_wrappermode = yes", "smtp_tls_security_level = secure")
        return Finding(value, problem, f"{remedy}; or stay with 465: {also}")
    if port in (587, 25) and wrapped:
        problem = f"port {port} begins in the clear (STARTTLS), and smtp_tls_wrappermode = yes expects TLS at once"
        return Finding(value, problem, setting("smtp_tls_wrappermode = no"))
    if facts.outside:
        return Finding(value)
    if port == 25:
        return Finding(value, "port 25 is for mail between providers: nobody can log in there", remedy)
    if port not in (587, 465):
        return Finding(value, f"the provider takes no mail on port {port or '?'}", remedy)
    return Finding(value, note="" if port == 587 else "TLS from the start, in place of STARTTLS (RFC 8314)")


def auth_enable(facts: Facts) -> Finding:
    """Judge whether the client logs in."""
    value = facts.setting("smtp_sasl_auth_enable")
    if value == "yes":
        return Finding(value)
    problem = "this machine does not log in, and the provider takes mail only from those who have"
    return Finding(value, problem, setting("smtp_sasl_auth_enable = yes"))


def security_options(facts: Facts) -> Finding:
    """Judge which mechanisms may be used under TLS; smtp_sasl_tls_security_options counts there."""
    value = facts.setting("smtp_sasl_security_options")
    under_tls = facts.setting("smtp_sasl_tls_security_options")
    remedy = setting("smtp_sasl_security_options = noanonymous", "smtp_sasl_tls_security_options = noanonymous")
    options = set(re.split(r"[,\s]+", under_tls))
    if "noplaintext" in options:
        problem = f"under TLS, “{under_tls}” forbids PLAIN and LOGIN, and the provider offers nothing else"
        return Finding(value, problem, remedy)
    if "noanonymous" not in options:
        return Finding(value, "anonymous mechanisms are not forbidden", remedy)
    note = f"under TLS, smtp_sasl_tls_security_options = {under_tls} counts: it forbids anonymous mechanisms"
    return Finding(value, note="" if value == "noanonymous" else note)
