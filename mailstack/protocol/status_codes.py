"""The meaning of SMTP's reply codes, and of the enhanced status codes that follow them.

Reply codes: RFC 5321, section 4.2, and the extensions named with each. Enhanced status codes: RFC 3463, and the later
RFCs in IANA's registry “SMTP Enhanced Status Codes”.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """A code, its meaning in a few words, and its source, like `RFC 5321, section 4.2.3`."""

    code: str
    text: str
    source: str


_SMTP = "RFC 5321, section 4.2.3"
_AUTH = "RFC 4954, section 6"
_STARTTLS = "RFC 3207, section 4"

_REPLIES = {
    211: ("system status, or help", _SMTP),
    214: ("help for people", _SMTP),
    220: ("the service is ready", _SMTP),
    221: ("the service closes the connection", _SMTP),
    235: ("authentication succeeded", _AUTH),
    250: ("completed", _SMTP),
    251: ("not a local user; the server will forward", _SMTP),
    252: ("cannot verify the user, but will take the message and try", _SMTP),
    334: ("the server waits for the next step of the authentication", "RFC 4954, section 4"),
    354: ("the server waits for the message; a line with only a dot ends it", _SMTP),
    421: ("the service is not available, and closes the connection", _SMTP),
    432: ("a password transition is needed before this mechanism works", _AUTH),
    450: ("not done: the mailbox is not available now", _SMTP),
    451: ("not done: an error on the server", _SMTP),
    452: ("not done: too little storage on the server", _SMTP),
    454: ("temporary failure of authentication", _AUTH),
    455: ("the server cannot do this with these parameters now", _SMTP),
    500: ("syntax error: the command is not recognised", _SMTP),
    501: ("syntax error in the parameters", _SMTP),
    502: ("the command is not implemented", _SMTP),
    503: ("the commands are in the wrong order", _SMTP),
    504: ("the parameter is not implemented", _SMTP),
    521: ("this host takes no mail at all", "RFC 7504, section 3"),
    525: ("the account is disabled", "RFC 5248, section 2.4"),
    530: ("authentication is required", _AUTH),
    534: ("the authentication mechanism is too weak", _AUTH),
    535: ("the user name or the password is wrong", _AUTH),
    538: ("this authentication mechanism needs encryption", _AUTH),
    550: ("not done: there is no such mailbox, or it is refused by policy", _SMTP),
    551: ("not a local user; try the address that is named", _SMTP),
    552: ("not done: the storage quota is exceeded", _SMTP),
    553: ("not done: the mailbox name is not allowed", _SMTP),
    554: ("the transaction failed", _SMTP),
    555: ("the parameters of MAIL or RCPT are not known, or not implemented", _SMTP),
    556: ("the domain takes no mail", "RFC 7504, section 4"),
}

# The meaning of a code after one particular command. "" is the greeting, which follows no command.
_AFTER = {
    ("", 554): ("no SMTP service here", "RFC 5321, section 3.1"),
    ("STARTTLS", 220): ("ready to start TLS", _STARTTLS),
    ("STARTTLS", 454): ("TLS is not available now", _STARTTLS),
    ("STARTTLS", 501): ("syntax error: STARTTLS takes no parameters", _STARTTLS),
    ("AUTH", 500): ("a line of the authentication is too long", _AUTH),
    ("AUTH", 501): ("cannot be decoded as base64, or the client gave up", "RFC 4954, section 4"),
    ("AUTH", 503): ("authenticated already, or in the middle of a transaction", "RFC 4954, section 4"),
    ("AUTH", 504): ("the authentication mechanism is not supported", "RFC 4954, section 4"),
    ("MAIL", 530): ("authentication, or TLS, is required first", "RFC 4954, section 6; RFC 3207, section 4"),
    ("AUTH", 530): ("TLS is required first", _STARTTLS),
}

# RFC 5321, section 4.2.1: the first digit.
_FIRST_DIGIT = {
    2: "completed",
    3: "go on: more is needed",
    4: "not done now; trying again may help",
    5: "not done, and trying again will not help",
}


def reply(code: int, *, after: str | None = None) -> Meaning | None:
    """Return the meaning of a reply code, or that of its first digit if it is unknown (RFC 5321, section 4.2.1).

    `after` is the verb of the command before the reply (`STARTTLS`), or "" for the greeting: a few codes have another
    meaning there. None if `code` is not a reply code.
    """
    found = (_AFTER.get((after, code)) if after is not None else None) or _REPLIES.get(code)
    if found is None and code // 100 in _FIRST_DIGIT:
        found = (_FIRST_DIGIT[code // 100], "RFC 5321, section 4.2.1")
    return Meaning(str(code), *found) if found else None


_CLASSES = {"2": "success", "4": "persistent transient failure", "5": "permanent failure"}  # RFC 3463, section 2

# RFC 3463, section 2; the details of subject N are in section 3.(N + 1).
_SUBJECTS = {
    "0": "nothing more is known",
    "1": "about an address",
    "2": "about a mailbox",
    "3": "about the mail system",
    "4": "about the network or the routing",
    "5": "about the protocol",
    "6": "about the content",
    "7": "about security or policy",
}

# subject.detail
_DETAILS = {
    "0.0": "nothing more is known",
    "1.0": "about an address",
    "1.1": "there is no such mailbox",
    "1.2": "there is no such domain, or it takes no mail",
    "1.3": "the recipient's address is not well-formed",
    "1.4": "the recipient's address matches more than one",
    "1.5": "the recipient's address is valid",
    "1.6": "the mailbox has moved, and no new address is known",
    "1.7": "the sender's address is not well-formed",
    "1.8": "the sender's domain does not exist, or takes no replies",
    "1.9": "relayed to a system that does not support all of this protocol",
    "1.10": "the recipient's domain says that it takes no mail (null MX)",
    "2.0": "about a mailbox",
    "2.1": "the mailbox is disabled",
    "2.2": "the mailbox is full",
    "2.3": "the message is larger than this mailbox may take",
    "2.4": "the mailing list could not be expanded",
    "3.0": "about the mail system",
    "3.1": "the mail system's storage is full",
    "3.2": "the system takes no messages now",
    "3.3": "the system lacks a requested feature",
    "3.4": "the message is too big for the system",
    "3.5": "the system is not configured properly",
    "3.6": "the requested priority was changed",
    "4.0": "about the network or the routing",
    "4.1": "no answer from the host",
    "4.2": "the connection broke",
    "4.3": "a directory (DNS or another) could not be queried",
    "4.4": "there is no route to the host",
    "4.5": "the mail system is congested",
    "4.6": "the mail is in a routing loop",
    "4.7": "the mail is too old: its time for delivery is over",
    "5.0": "about the protocol",
    "5.1": "the command is not valid, or not valid here",
    "5.2": "syntax error in the command",
    "5.3": "too many recipients",
    "5.4": "the command's arguments are not valid",
    "5.5": "the other side speaks another version of the protocol",
    "5.6": "a line of the authentication is too long",
    "6.0": "about the content",
    "6.1": "this kind of content is not supported",
    "6.2": "the content would have to be converted, which is prohibited",
    "6.3": "the content would have to be converted, which cannot be done",
    "6.4": "the content was converted, with loss",
    "6.5": "the content could not be converted",
    "6.6": "the content could not be fetched",
    "6.7": "addresses beyond ASCII are not permitted here",
    "6.8": "a reply in UTF-8 is needed, and the client does not accept one",
    "6.9": "a header in UTF-8 cannot be delivered to a recipient",
    "6.10": "a reply in UTF-8 is needed, and the client does not accept one",
    "7.0": "about security or policy",
    "7.1": "not authorised: refused by policy",
    "7.2": "the sender may not use this mailing list",
    "7.3": "the security of the message would have to be converted, which cannot be done",
    "7.4": "a security feature is not supported",
    "7.5": "a cryptographic operation failed",
    "7.6": "a cryptographic algorithm is not supported",
    "7.7": "the message was changed on its way",
    "7.8": "the user name or the password is wrong",
    "7.9": "the authentication mechanism is too weak",
    "7.10": "encryption is needed",
    "7.11": "this authentication mechanism needs encryption",
    "7.12": "a password transition is needed before this mechanism works",
    "7.13": "the account is disabled",
    "7.14": "the servers lack the required trust relationship",
    "7.15": "the priority is too low to be accepted now",
    "7.16": "the message is too big for its priority",
    "7.17": "the mailbox has another owner than before",
    "7.18": "the domain has another owner than before",
    "7.19": "whether the owner has changed cannot be found out",
    "7.20": "there is no DKIM signature that passes",
    "7.21": "there is no DKIM signature that is acceptable",
    "7.22": "there is no valid DKIM signature of the author's domain",
    "7.23": "the client may not send for this domain (SPF)",
    "7.24": "the SPF record could not be evaluated",
    "7.25": "the client's address and name do not match (reverse DNS)",
    "7.26": "more than one check of the sender failed",
    "7.27": "the sender's domain says that it takes no mail (null MX)",
    "7.28": "too much mail in too little time",
    "7.29": "the chain of authentication results (ARC) is broken",
    "7.30": "the next server does not support REQUIRETLS",
}

# Codes that RFC 3463 does not define.
_LATER = {
    "1.9": "RFC 3886",
    "1.10": "RFC 7505",
    "3.6": "RFC 6710",
    "5.6": "RFC 4954, section 6",
    "6.6": "RFC 4468",
    "6.7": "RFC 6531",
    "6.8": "RFC 6531",
    "6.9": "RFC 6531",
    "6.10": "RFC 6531",
    "7.8": "RFC 4954, section 6",
    "7.9": "RFC 4954, section 6",
    "7.10": "RFC 5248, section 2.4",
    "7.11": "RFC 4954, section 6",
    "7.12": "RFC 4954, section 6",
    "7.13": "RFC 5248, section 2.4",
    "7.14": "RFC 5248, section 2.4",
    "7.15": "RFC 6710",
    "7.16": "RFC 6710",
    "7.17": "RFC 7293",
    "7.18": "RFC 7293",
    "7.19": "RFC 7293",
    "7.20": "RFC 7372, section 3.1",
    "7.21": "RFC 7372, section 3.1",
    "7.22": "RFC 7372, section 3.1",
    "7.23": "RFC 7372, section 3.2",
    "7.24": "RFC 7372, section 3.2",
    "7.25": "RFC 7372, section 3.3",
    "7.26": "RFC 7372, section 3.4",
    "7.27": "RFC 7505",
    "7.28": "IANA, SMTP Enhanced Status Codes",
    "7.29": "RFC 8617",
    "7.30": "RFC 8689",
}

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})", re.ASCII)  # RFC 3463, section 2


def enhanced(code: str) -> Meaning | None:
    """Return the meaning of an enhanced status code (`5.7.8`): class, then detail.

    If the detail is unknown, the subject is used, and the class alone if that is unknown, too. None if `code` is not an
    enhanced status code.
    """
    match = _ENHANCED.fullmatch(code)
    if match is None:
        return None
    of_class, subject, key = _CLASSES[match[1]], match[2], f"{match[2]}.{match[3]}"
    if key in _DETAILS:
        own = f"RFC 3463, section 3.{int(subject) + 1}"
        text = of_class if key == "0.0" else f"{of_class}: {_DETAILS[key]}"
        return Meaning(code, text, _LATER.get(key, own))
    if subject in _SUBJECTS:
        return Meaning(code, f"{of_class}: {_SUBJECTS[subject]}", "RFC 3463, section 2")
    return Meaning(code, of_class, "RFC 3463, section 2")


# Extensions beyond RFC 5321 in a reply to EHLO; IANA, SMTP Service Extensions.
_EXTENSIONS = {
    "8BITMIME": "RFC 6152",
    "AUTH": "RFC 4954",
    "BINARYMIME": "RFC 3030",
    "CHUNKING": "RFC 3030",
    "DELIVERBY": "RFC 2852",
    "DSN": "RFC 3461",
    "ENHANCEDSTATUSCODES": "RFC 2034",
    "ETRN": "RFC 1985",
    "EXPN": "RFC 5321",
    "HELP": "RFC 5321",
    "LIMITS": "RFC 9422",
    "MT-PRIORITY": "RFC 6710",
    "PIPELINING": "RFC 2920",
    "REQUIRETLS": "RFC 8689",
    "SIZE": "RFC 1870",
    "SMTPUTF8": "RFC 6531",
    "STARTTLS": "RFC 3207",
    "VRFY": "RFC 5321",
}


def extension(line: str) -> str:
    """Return the source of the extension in a line of the reply to EHLO (`250-SIZE 10485760`); "" if unknown."""
    return _EXTENSIONS.get(line[4:].partition(" ")[0].upper(), "")
