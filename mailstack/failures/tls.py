"""Known failures of TLS: not offered, or a certificate that is not valid."""

from __future__ import annotations

from mailstack.failures.entry import known_failure

ENTRIES = (
    known_failure(
        "starttls-required",
        "the server wants TLS before anything else",
        cause="the client went on without STARTTLS: its smtp_tls_security_level is none",
        remedy="set smtp_tls_security_level = encrypt (or secure) on the client",
        source="RFC 3207, section 4; postconf(5), smtp_tls_security_level",
        pattern=r"\b530[ -]5\.7\.0 Must issue a STARTTLS|(?i:must issue a STARTTLS command)",
    ),
    known_failure(
        "tls-not-offered",
        "the client wants TLS, and the server does not offer it",
        cause="the server has no TLS on this port, or a device on the path removes STARTTLS from its reply",
        remedy="use the provider's submission port (587, or 465 with TLS from the start); set up the server's TLS",
        source="RFC 3207, section 6; postconf(5), smtp_tls_security_level",
        pattern=r"TLS is required, but (was not offered|host \S+ refused to start TLS)",
    ),
    known_failure(
        "tls-from-the-start",
        "port 465 wants TLS from the start, not STARTTLS",
        cause="the client waits for a plaintext greeting, the server for a TLS handshake: both time out",
        remedy="set smtp_tls_wrappermode = yes and smtp_tls_security_level = encrypt, or use port 587",
        source="RFC 8314, section 3.3; postconf(5), smtp_tls_wrappermode",
        pattern=r"SMTPS wrappermode \(TCP port \d+\) requires",
    ),
    known_failure(
        "ca-file-unusable",
        "the client cannot use its list of CAs",
        cause="the file in smtp_tls_CAfile is empty, not readable or no PEM: Postfix turned TLS off altogether",
        remedy="put the CA's certificate into it (`postconf smtp_tls_CAfile`), postfix reload, then postqueue -f",
        source="postconf(5), smtp_tls_CAfile",
        pattern=r"cannot load Certification Authority data|no certificate or crl found|our TLS engine is unavailable",
    ),
    known_failure(
        "certificate-issuer-unknown",
        "the certificate is by an issuer that the client does not know",
        cause="it is self-signed, issued by a private CA, or sent without its chain; or the client has no list of CAs",
        remedy="name the CA's certificate in smtp_tls_CAfile; on the server, put the whole chain into its file",
        source="postconf(5), smtp_tls_CAfile, smtpd_tls_chain_files",
        pattern=r"certificate verification failed for \S+: (untrusted issuer|self-signed certificate)"
        r"|alert unknown ca\b|num=\d+:(self[- ]signed certificate|unable to get (local )?issuer certificate)",
    ),
    known_failure(
        "certificate-expired",
        "the certificate has expired",
        cause="it was not renewed, or the server still uses the old one; or a clock is wrong",
        remedy="renew it and reload the server; compare `date` on both machines",
        source="RFC 5280, section 4.1.2.5",
        pattern=r"certificate verification failed for \S+: certificate (has expired|not yet valid)"
        r"|alert certificate expired",
    ),
    known_failure(
        "certificate-for-another-name",
        "the certificate is for another name",
        cause="the client knows the server by a name (or an address) that is not in its certificate",
        remedy="use the name in the certificate as relayhost, or get a certificate with this one in it",
        source="RFC 9525, section 6; Postfix TLS_README, “Mandatory server certificate verification”",
        pattern=r"certificate verification failed for \S+: num=62:|(host ?name|IP address) mismatch",
    ),
    known_failure(
        "certificate-not-verified",
        "the server's certificate does not hold, so nothing was sent",
        cause="the client insists on a valid certificate; the log's line before this one says what is wrong with it",
        remedy="look for “certificate verification failed” just before; with smtp_tls_loglevel = 0 set it to 1",
        source="postconf(5), smtp_tls_security_level",
        pattern=r"Server certificate not (verified|trusted)",
    ),
    known_failure(
        "tls-key-unreadable",
        "the server cannot read its own key or certificate",
        cause="the file is not there, not PEM, or its key does not belong to its certificate",
        remedy="correct smtpd_tls_chain_files: a key, its certificate, then the chain; `postfix check`, then reload",
        source="postconf(5), smtpd_tls_chain_files",
        pattern=r"error opening chain file|error loading (certificate|private key)|cannot load \S+ key data"
        r"|\b454[ -]4\.7\.0 TLS not available|TLS not available due to local problem",
    ),
    known_failure(
        "tls-handshake-failed",
        "client and server did not agree on TLS",
        cause="they have no version or cipher in common, or one of them could not go on (its log says more)",
        remedy="allow TLS 1.2 or newer on both; read the line “TLS library problem” on both sides",
        source="RFC 8446, section 6.2; postconf(5), smtp_tls_mandatory_protocols",
        pattern=r"Cannot start TLS: handshake failure|\bSSL_(connect|accept) error\b|TLS library problem",
    ),
)
