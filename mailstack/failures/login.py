"""Known failures of authentication: SASL on the client's and on the server's side."""

from __future__ import annotations

from mailstack.failures.entry import known_failure

ENTRIES = (
    known_failure(
        "password-not-for-applications",
        "the account's password is not accepted from applications",
        cause="the provider accepts it on its web pages only, usually because the account has a second factor",
        remedy="create an application password in the provider's settings, put it into sasl_passwd, run postmap",
        source="RFC 4954, section 6 (534)",
        pattern=r"\b53[45][ -]5\.7\.9\b|[Aa]pplication-specific password",
    ),
    known_failure(
        "authentication-unavailable",
        "the server cannot check passwords at the moment",
        cause="the server's Postfix does not reach the service that verifies passwords (Dovecot's auth)",
        remedy="start Dovecot, and make sure that its auth service listens on the socket in smtpd_sasl_path",
        source="RFC 4954, section 6; postconf(5), smtpd_sasl_path",
        pattern=r"\b454[ -]4\.7\.0 Temporary authentication failure|Connection lost to authentication server"
        r"|Connect to Dovecot auth socket \S+ failed|fatal: no SASL authentication mechanisms"
        # The line names no user if Dovecot did not answer; with a wrong password it does.
        r"|SASL [\w-]+ authentication failed: \(reason unavailable\), sasl_username=\(unavailable\)",
    ),
    known_failure(
        "no-password-map",
        "the client shall log in, but has no table of passwords",
        cause="smtp_sasl_auth_enable is yes, but smtp_sasl_password_maps is empty: Postfix's client ends at once",
        remedy="set smtp_sasl_password_maps to a table for relayhost; postfix reload; the client starts after a minute",
        source="postconf(5), smtp_sasl_password_maps",
        pattern=r"fatal: specify a password table via the",
    ),
    known_failure(
        "no-sasl-mechanism",
        "the client has none of the SASL mechanisms that the server offers",
        cause="Cyrus SASL's plug-ins (PLAIN, LOGIN) are not installed; or they support none of the server's mechanisms",
        remedy="apt-get install libsasl2-modules, then restart Postfix; compare the AUTH line of the server's EHLO",
        source="Postfix SASL_README, “Enabling SASL authentication in the Postfix SMTP/LMTP client”",
        pattern=r"\bno mechanism available\b|No worthy mechs found",
    ),
    known_failure(
        "no-common-mechanism",
        "the server offers no mechanism that the client may use on this connection",
        cause="smtp_sasl_mechanism_filter excludes all mechanisms that it offers",
        remedy="compare the AUTH line of the server's EHLO with the filter; a provider's other port may offer others",
        source="postconf(5), smtp_sasl_mechanism_filter",
        pattern=r"offered no (compatible|supported) (authentication|AUTH) mechanisms|offered null AUTH mechanism list",
    ),
    known_failure(
        "wrong-password",
        "the user name or the password is wrong",
        cause="the server knows no such user, or has another password for it",
        remedy="correct sasl_passwd (its key is relayhost, to the letter), run postmap on it, then postqueue -f",
        source="RFC 4954, section 6",
        pattern=r"\b535[ -]5\.7\.8\b|(^|\bsaid: )535[ -]|\bSASL [\w-]+ authentication failed"
        r"|\(auth failed, \d+ attempts|\[AUTHENTICATIONFAILED\]",
    ),
    known_failure(
        "login-required",
        "the server takes mail only from those who have logged in",
        cause="the client gave no credentials: there are none for this server in its sasl_passwd, or AUTH is off",
        remedy="set smtp_sasl_auth_enable = yes, and an entry in sasl_passwd whose key is relayhost, to the letter",
        source="RFC 4954, section 6; postconf(5), smtp_sasl_password_maps",
        pattern=r"\b5[35]\d[ -]5\.7\.[01] .*(?i:authentication (is )?required)"
        r"|: Sender address rejected: not logged in|: (Client host|Recipient address) rejected: Access denied",
    ),
)
