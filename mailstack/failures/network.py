"""Known failures of connections to the next host: names, routes, ports."""

from __future__ import annotations

from mailstack.failures.entry import known_failure

# Addresses that an outside provider cannot have: loopback, and RFC 1918.
_PRIVATE = r"(?:127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)"

ENTRIES = (
    known_failure(
        "mailbox-server-down",
        "the server of the mailboxes does not answer",
        cause="Dovecot's LMTP service is not running, or does not listen where Postfix looks for it",
        remedy="start Dovecot; compare virtual_transport with Dovecot's `service lmtp`; then postqueue -f",
        source="Dovecot, “LMTP”; postconf(5), virtual_transport",
        pattern=r"connect to [^ [:]+\[[^]]+\]:24: (Connection refused|Connection timed out|No route to host)"
        r"|connect to [^ [:]+\[[^]]*lmtp[^]]*\]: (Connection refused|No such file or directory|Permission denied)"
        r"|postfix(-\w+)?/lmtp\[\d+\]: .*(Connection refused|unable to look up host)"
        r"|postfix(-\w+)?/lmtp\[\d+\]: .*connect to \S+\[[^]]*/[^]]*\]: (No such file or directory|Permission denied)",
    ),
    known_failure(
        "port-25-blocked",
        "no way out to port 25",
        cause="like most networks, this one lets only its own mail server connect to port 25 outside, against spam",
        remedy="relay through your provider's submission service: relayhost = [NAME]:587, with AUTH and TLS",
        source="RFC 5068, section 4; Postfix SASL_README",
        pattern=rf"connect to \S+\[(?!{_PRIVATE})[\da-fA-F.:]+\]:25: "
        r"(Connection timed out|Network is unreachable|No route to host)",
    ),
    known_failure(
        "connection-refused",
        "nobody listens on that port",
        cause="the server is not running, listens on another port or address, or a firewall rejects the connection",
        remedy="check relayhost's name and port with `nc -v HOST PORT`; on the server, `ss -ltn` and inet_interfaces",
        source="connect(2), ECONNREFUSED; postconf(5), relayhost",
        pattern=r"\bConnection refused\b",
    ),
    known_failure(
        "connection-timed-out",
        "the server did not answer in time",
        cause="a firewall drops the packets, no host has the address, or the server hangs",
        remedy="try `nc -v HOST PORT` from the same machine; check whether a firewall on the path blocks this port",
        source="connect(2), ETIMEDOUT; postconf(5), smtp_connect_timeout",
        pattern=r"\bConnection timed out\b|conversation with \S+ timed out",
    ),
    known_failure(
        "no-route",
        "there is no way to that network",
        cause="there is no default gateway, the network is closed, or IPv6 has no route",
        remedy="check `ip route`; without IPv6, set inet_protocols = ipv4",
        source="connect(2), ENETUNREACH and EHOSTUNREACH; postconf(5), inet_protocols",
        pattern=r"\b(Network is unreachable|No route to host)\b",
    ),
    known_failure(
        "name-not-resolved",
        "the host's or domain's name cannot be found",
        cause="the next hop's name is misspelt (in relayhost), or it has no address, or the resolver does not answer",
        remedy="correct the name in relayhost (`getent hosts NAME` must find it), postfix reload, then postqueue -f",
        source="RFC 5321, section 5.1; postconf(5), smtp_host_lookup",
        pattern=r"unable to look up host \S+:|Host or domain name not found|Name service error for name="
        r"|: Domain not found\b|host or service \S+ not found",
    ),
    known_failure(
        "loops-to-itself",
        "the mail would go to this very host again",
        cause="the next hop for the domain is this machine, which does not accept the domain as its own",
        remedy="name the domain in mydestination or virtual_mailbox_domains, or correct relayhost or transport_maps",
        source="postconf(5), mydestination, proxy_interfaces",
        pattern=r"\bloops back to myself\b|mail forwarding loop for",
    ),
    known_failure(
        "connection-lost",
        "the server hung up in the middle",
        cause="it crashed, rejects this client without a reply, or a device on the path closed the connection",
        remedy="read the server's log at this moment; Postfix tries again by itself",
        source="RFC 5321, section 3.8",
        pattern=r"\blost connection with \S+ while\b",
    ),
)
