"""Check mail addresses, domains and hosts, and the stricter rules for addresses of a lab.

An outside address follows RFC 5321, section 4.1.2. An address of a lab is also a user name for Dovecot, a key in
Postfix's tables, the name of a file and of a directory, and an atom of IMAP: every server must accept it.
`address_flaw` returns the reason against one. tests/docker/test_addresses.py logs in, sends and receives with every
allowed character.
"""

from __future__ import annotations

import ipaddress
import re

# RFC 5321, section 4.1.2: the dot-string form.
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_LONGEST_LOCAL = 64  # octets; RFC 5321, section 4.5.3.1.1
_LONGEST = 254  # octets of a whole address; RFC 5321, section 4.5.3.1.3, without < and >
# Octets of a lab's domain: 64 octets before the @ still fit, and `postfix.` before the domain is a valid host name.
_LONGEST_DOMAIN = _LONGEST - 1 - _LONGEST_LOCAL

NO_ADDRESS, NO_DOMAIN = "is not an address", "is not a domain"

# Characters that RFC 5321 allows and a server of the lab does not accept.
_REFUSED = {
    "+": "what follows a + is a detail, not part of the name (RFC 5233; postconf(5), recipient_delimiter)",
    "/": "a directory is named after the address",
    "!": "Postfix takes it for a route, a!b for b@a, and relays no such mail (postconf(5), allow_untrusted_routing)",
    "%": "Postfix takes it for a route, a%b for a@b, and relays no such mail (postconf(5), allow_untrusted_routing)",
    "{": "IMAP takes it for the beginning of a literal (RFC 3501, section 4.3)",
}
_REFUSED_FIRST = {
    "#": "a line that begins with it is a comment to Postfix and Dovecot",
    "|": "`mail` takes it for a program to pipe the mail into",
    "-": "programs take it for an option (postconf(5), allow_min_user)",
}


def is_domain(name: str) -> bool:
    """Return whether `name` can be a mail domain: two labels or more, the last not numeric (RFC 1035, section 2.3.1).

    A name with a numeric last label is an IPv4 address (RFC 1123, section 2.1).
    """
    labels = name.split(".")
    fits = len(name) <= 253 and len(labels) >= 2 and all(_LABEL.fullmatch(label) for label in labels)
    return fits and not labels[-1].isdecimal()


def is_host(name: str) -> bool:
    """Return whether `name` can be a host: a name of one label or more, or an IPv4 address.

    A name with a numeric last label is an address (RFC 1123, section 2.1).
    """
    labels = name.lower().split(".")
    if labels[-1].isdecimal():
        try:
            return bool(ipaddress.IPv4Address(name))
        except ValueError:
            return False
    return name.isascii() and len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def is_address(text: str) -> bool:
    """Return whether `text` can be a mail address (RFC 5321, section 4.1.2; ASCII, no quoted local part)."""
    # Check for ASCII before `lower`, which turns the Kelvin sign (U+212A), for example, into a k.
    local, _, domain = text.lower().rpartition("@") if text.isascii() else ("", "", "")
    return len(local) <= _LONGEST_LOCAL and bool(_LOCAL.fullmatch(local)) and is_domain(domain)


def domain_flaw(name: str) -> str:
    """Return why `name`, in lower case, cannot be a domain of a lab; "" when it can."""
    if not name.isascii():
        return f"contains non-ASCII characters{_in_ascii(name)}"
    if not is_domain(name):
        return NO_DOMAIN
    if len(name) > _LONGEST_DOMAIN:
        return f"has {len(name)} characters; {_LONGEST_DOMAIN} are allowed, so that 64 fit before the @ (RFC 5321)"
    return ""


def address_flaw(address: str) -> str:
    """Return why `address` cannot be an address of a lab; "" when it can.

    Allowed are the characters that every server of the lab accepts, in a log-in, a delivery and a submission.
    """
    local, at, domain = address.rpartition("@")
    if not at or not local:
        return NO_ADDRESS
    if local.startswith('"'):
        return "has a quoted local part, which the lab's servers do not take for a user's name"
    if not local.isascii():
        return "has non-ASCII characters before the @, which Dovecot's LMTP does not support (SMTPUTF8, RFC 6531)"
    if len(local) > _LONGEST_LOCAL:
        return f"has {len(local)} characters before the @; {_LONGEST_LOCAL} are allowed (RFC 5321, section 4.5.3.1.1)"
    for character in local:
        if reason := _REFUSED.get(character):
            return f"cannot have {character} in it: {reason}"
    if reason := _REFUSED_FIRST.get(local[0]):
        return f"cannot begin with {local[0]}: {reason}"
    if problem := domain_flaw(domain.lower()):
        return NO_ADDRESS if problem == NO_DOMAIN else f"has a domain that {problem}"
    return "" if is_address(address) else NO_ADDRESS


def _in_ascii(name: str) -> str:
    """Return a hint with the ASCII form of an internationalised domain name (RFC 5890); "" when Python has none."""
    try:
        ascii_name = name.encode("idna").decode()
    except UnicodeError:
        return ""
    return f": write it as {ascii_name}" if is_domain(ascii_name) else ""
