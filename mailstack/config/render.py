"""Render a Lab as configuration of the servers: passwd-files, tables and settings. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from mailstack.model import UNLIMITED, Account, Lab
from mailstack.roles import STANDARD, Role
from mailstack.secret import Secret

POSTFIX_HOST = STANDARD[Role.SUBMISSION]  # its name on the network `mail`


def credentials_file(user: str, password: Secret) -> Secret:
    """Return `user:password` in one line, as the sender and Dovecot's passwd-file read them."""
    return Secret(f"{user}:{password.reveal()}\n")


def accounts_file(lab: Lab, passwords: Mapping[str, Secret]) -> Secret:
    """Return Dovecot's passwd-file: each account with its password, and its own quota if it has one.

    https://doc.dovecot.org/2.4.1/core/config/auth/databases/passwd_file.html
    """
    return Secret("".join(account_line(each, passwords[each.address]).reveal() for each in lab.accounts))


def account_line(account: Account, password: Secret) -> Secret:
    """Return the line of an account in a passwd-file."""
    size = "unlimited" if account.quota == UNLIMITED else f"{account.quota}B"
    extra = f"userdb_quota_storage_size={size}" if account.quota is not None else ""
    return Secret(f"{_as_user(account.address)}:{{PLAIN}}{password.reveal()}::::::{extra}\n")


def account_of(line: str) -> Account:
    """Return the account of a line of a passwd-file, without the password."""
    user, _, rest = line.strip().partition(":")
    address = _address_of(user)
    _, given, size = rest.partition("userdb_quota_storage_size=")
    if not given:
        return Account(address)
    return Account(address, UNLIMITED if size == "unlimited" else int(size.removesuffix("B")))


def _as_user(address: str) -> str:
    """Return an address as the user of a passwd-file: Dovecot looks it up with a backslash before each '.

    Dovecot's auth_request_str_escape adds it when a variable like %{user} is expanded.
    """
    return address.replace("'", r"\'")


def _address_of(user: str) -> str:
    return user.replace(r"\'", "'")


def passwords_of(accounts_file: str) -> dict[str, Secret]:
    """Return address → password from a passwd-file."""
    passwords = {}
    for line in accounts_file.splitlines():
        user, _, rest = line.partition(":")
        passwords[_address_of(user)] = Secret(rest.removeprefix("{PLAIN}").split(":", 1)[0])
    return passwords


def tables(lab: Lab, relay_user: str) -> dict[str, str]:
    """Return the files that are not secret: name in the lab's directory, as in compose/lab.yaml → content."""
    return {
        "postfix.cf": _postfix(lab, relay_user),
        "sender.cf": _sender(lab),
        # Dovecot's limits, followed by the overlay's lines, which override them.
        "dovecot.conf": f"quota_storage_size = {lab.limits.mailbox_quota}B\n{lab.settings.dovecot}\n",
        # virtual_mailbox_maps: the addresses that exist.
        "mailboxes": "".join(f"{address} exists\n" for address in lab.addresses()),
        "aliases": _aliases(lab),
        "owners": _owners(lab, relay_user),
    }


def _postfix(lab: Lab, relay_user: str) -> str:
    """Return the settings of the provider's MTA (postconf(5)): names, limits, and the logins of sender addresses."""
    added = "lmdb:/etc/postfix/added"
    return _settings(
        {
            "myhostname": f"{POSTFIX_HOST}.{lab.mailname}",
            "virtual_mailbox_domains": " ".join(domain.name for domain in lab.domains),
            "message_size_limit": str(lab.limits.message_size),
            # Without it a mail near the limit is refused for lack of queue space (postconf(5), queue_minfree).
            "mailbox_size_limit": "0",
            # An added account: itself and the relay's user. DATABASE_README: unionmap joins results, pipemap chains
            # look-ups.
            "smtpd_sender_login_maps": (
                f"texthash:/run/mailstack/owners, unionmap:{{{added}, pipemap:{{{added}, static:{relay_user}}}}}"
            ),
        },
        lab.settings.postfix,
    )


def _sender(lab: Lab) -> str:
    """Return the settings of the sender, the student's machine (postconf(5)): its mail name and its relay host.

    A blank one has Debian's template instead (stack/sender/configuration.pl), and only the settings of an overlay.
    """
    if lab.blank:
        return f"template: debian\nmailname: {lab.mailname}\n" + _settings({}, lab.settings.sender)
    own = {
        "myhostname": f"{STANDARD[Role.SENDER]}.{lab.mailname}",
        "myorigin": lab.mailname,
        "message_size_limit": "0",
        "relayhost": f"[{lab.relay.host}]:{lab.relay.port}" if lab.relay else f"[{POSTFIX_HOST}]:587",
    }
    if lab.relay and lab.relay.port == 465:
        own["smtp_tls_wrappermode"] = "yes"  # RFC 8314, section 3.3: TLS from the start
    return _settings(own, lab.settings.sender)


def _aliases(lab: Lab) -> str:
    """Return virtual_alias_maps (virtual(5)). A catch-all would take over accounts: they map to themselves first."""
    lines = [f"{alias.address} {', '.join(alias.targets)}\n" for alias in lab.aliases]
    for domain in lab.domains:
        if domain.catch_all:
            lines += [f"{a} {a}\n" for a in lab.addresses() if a.endswith(f"@{domain.name}")]
            lines.append(f"@{domain.name} {domain.catch_all}\n")
    return "".join(lines)


def _owners(lab: Lab, relay_user: str) -> str:
    """Return smtpd_sender_login_maps: the logins of each sender address. The relay's user may use every address."""
    owners = {address: [address] for address in lab.addresses()}
    for alias in lab.aliases:
        owners.setdefault(alias.address, []).extend(t for t in alias.targets if t in owners)
    lines = [f"{address} {', '.join([*logins, relay_user])}\n" for address, logins in owners.items()]
    lines += [f"@{domain.name} {relay_user}\n" for domain in lab.domains]
    return "".join(lines)


def _settings(own: Mapping[str, str], overlay: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in {**own, **overlay}.items())
