"""Known refusals by a server: for its policy, for its limits, for the address."""

from __future__ import annotations

from mailstack.failures.entry import known_failure

ENTRIES = (
    known_failure(
        "lab-closed",
        "the lab is closed: no mail leaves it",
        cause="the recipient's domain is not one of the lab's, and no mail leaves a lab",
        remedy="write to an address of the lab (`mailstack status`), or name a relay outside: `mailstack up --relay`",
        source="RFC 3463, section 3.5 (X.4.4); postconf(5), default_transport",
        pattern=r"this lab is closed\b",
    ),
    known_failure(
        "refused-by-rule",
        "a rule of the server refuses mails with this header or text",
        cause="a rule in header_checks or body_checks of the machine that logged it rejects this mail",
        remedy="find the rule (`postconf header_checks body_checks`); change the mail or the rule, then postfix reload",
        source="header_checks(5); postconf(5), header_checks, body_checks",
        pattern=r"\breject: (header|body|mime-header|nested-header) ",
    ),
    known_failure(
        "relay-denied",
        "the server does not relay for this client",
        cause="the recipient's domain is not the server's own, and the client has not logged in (or may not relay)",
        remedy="log in, on the submission port; or make the domain the server's own (virtual_mailbox_domains)",
        source="postconf(5), smtpd_relay_restrictions",
        pattern=r"(?i:\brelay(ing)? (access )?denied\b|unable to relay\b)",
    ),
    known_failure(
        "sender-not-owned",
        "this user may not send as that address",
        cause="the envelope sender does not belong to the user who logged in",
        remedy="send from an address of this user, or give them this one in smtpd_sender_login_maps",
        source="postconf(5), reject_sender_login_mismatch",
        pattern=r"Sender address rejected: not owned by user",
    ),
    known_failure(
        "taken-for-local",
        "this machine took the mail for its own, and has no such user",
        cause="the recipient's domain is in mydestination, so Postfix looks for a user of the machine itself",
        remedy="take the domain out of mydestination (`postconf mydestination`), postfix reload, and send it again",
        source="postconf(5), mydestination; local(8)",
        pattern=r'(?:relay=local, .*\(|^)unknown user: "',  # in a line of a log, or as the reason alone
    ),
    known_failure(
        "mailbox-unknown",
        "there is no such mailbox",
        cause="the address does not exist: it is misspelt, or missing in the server's tables",
        remedy="check the address; on the server, virtual_mailbox_maps and virtual_alias_maps (`postmap -q`)",
        source="RFC 3463, section 3.2 (X.1.1); postconf(5), smtpd_reject_unlisted_recipient",
        pattern=r"\b550[ -]5\.1\.1\b|\bUser unknown\b|\bUser doesn't exist\b|\(unknown user: ",
    ),
    known_failure(
        "over-quota",
        "the mailbox is full",
        cause="with this mail it would exceed its quota (`doveadm quota get -u USER` shows both)",
        remedy="remove mails that nobody needs (IMAP, or doveadm expunge), or give the account a larger quota",
        source="RFC 3463, section 3.3 (X.2.2); Dovecot, “Quota”",
        pattern=r"\b[45]52[ -][45]\.2\.2\b|\b[45]\.2\.2 |\bQuota exceeded\b|(?i:\bmailbox (is )?full\b)",
    ),
    known_failure(
        "too-large",
        "the mail is larger than the server takes",
        cause="it exceeds the limit that the server announces in EHLO (SIZE); attachments grow by a third in base64",
        remedy="send less, or a link; on the server, raise message_size_limit",
        source="RFC 1870, section 6; postconf(5), message_size_limit",
        pattern=r"\b552[ -]5\.3\.4\b|message size \d+ exceeds size limit|Message size exceeds fixed limit"
        r"|\bmessage file too big\b|\bFile too large\b"
        r"|\bqueue file size limit exceeded\b|^larger than message_size_limit allows$",
    ),
    known_failure(
        "greylisted",
        "greylisted: come back later",
        cause="the server sees this client, sender and recipient together for the first time, and expects a retry",
        remedy="wait: Postfix tries again by itself. Do not flush the queue before the time that the reply names",
        source="RFC 6647, section 2",
        pattern=r"\b4\d\d[ -].*\b(?i:gr[ae]y-?list)",
    ),
    known_failure(
        "too-many-connections",
        "too many connections at once from this client",
        cause="the client has more open connections than the server allows for one address",
        remedy="lower the client's default_destination_concurrency_limit, or raise smtpd_client_connection_count_limit",
        source="postconf(5), smtpd_client_connection_count_limit",
        pattern=r"(?i:too many (concurrent )?(SMTP )?connections)|Connection concurrency limit exceeded"
        r"|Maximum number of connections from user\+IP exceeded",
    ),
    known_failure(
        "too-many-deliveries",
        "too many deliveries to one mailbox at the same time",
        cause="Postfix delivers to this user over more LMTP connections than Dovecot allows for one mailbox",
        remedy="keep lmtp_destination_concurrency_limit below Dovecot's lmtp_user_concurrency_limit; then postqueue -f",
        source="postconf(5), lmtp_destination_concurrency_limit; Dovecot, lmtp_user_concurrency_limit",
        pattern=r"Too many concurrent deliveries for user",
    ),
    known_failure(
        "too-many-hops",
        "the mail has passed too many servers: it goes in circles",
        cause="two servers pass it to each other, because a forwarding or a transport leads back",
        remedy="read the Received headers of the bounce: the hosts that repeat form the loop",
        source="RFC 5321, section 6.3; postconf(5), hopcount_limit",
        pattern=r"(?i:\btoo many hops\b)|\bhopcount exceeded\b",
    ),
)
