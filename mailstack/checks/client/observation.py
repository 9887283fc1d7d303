"""Look at the sender: settings in effect, files, processes, and the login that its map of passwords leads to."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from mailstack.checks.client.facts import Facts, Login, NextHop, PasswordMap, Server, password_maps, without_passwords
from mailstack.config import files
from mailstack.lab.running import RunningLab
from mailstack.model import STUDENT, Lab, Relay, Result, ServiceState
from mailstack.roles import Role

# The master process, whoever has started it; the file is left behind by one that was killed.
_RUNNING = (
    "read -r process < /var/spool/postfix/pid/master.pid && read -r name < /proc/$process/comm && [ $name = master ]"
)
# When Postfix has read its configuration last, and when that was changed; in seconds of the epoch, each with its file.
_READ_AT = r"""
cd /var/log
line=$(cat mail.log.1 mail.log 2> /dev/null | grep -E 'postfix/master\[[0-9]+\]: (reload|daemon started) ' | tail -n 1)
[ -z "$line" ] || date -d "$(echo "$line" | cut -c 1-15)" '+%s read'
stat -c '%Y %n' /etc/postfix/main.cf /etc/postfix/master.cf
"""
# For each file that is there: modification time, mode, owner and path.
_STAT = 'for file; do [ ! -e "$file" ] || stat -c "%Y %a %U %n" "$file"; done'
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s+([^-]+)-----END CERTIFICATE-----")


class Machine:
    """The sender of a lab, looked at."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab, self._engine = lab, lab.engine
        self._defined = lab.definition()
        self._service: ServiceState = lab.one(Role.SENDER)

    def run(self, *argv: str) -> Result:
        """Run a program on it."""
        return self._engine.execute(self._service.container, list(argv))

    def facts(self) -> Facts:
        """Return all that the rows are judged by."""
        with ThreadPoolExecutor() as pool:
            running = pool.submit(self.run, "sh", "-c", _RUNNING)
            types, times = pool.submit(self.run, "postconf", "-m"), pool.submit(self.run, "sh", "-c", _READ_AT)
            # Also master.cf is read, since a mistake there stops Postfix as well.
            read, services, used = pool.map(lambda argv: self.run(*argv), _READ)
            facts = self._expected()
            facts = replace(facts, running=running.result().code == 0, unread=unread(times.result().stdout))
            for result in (read, services):
                if result.code != 0:
                    return replace(facts, error=_fatal(result.stderr))
            facts = replace(
                facts,
                settings=parse_settings(read.stdout),
                configured=without_passwords(used.stdout),
                unused=tuple(dict.fromkeys(re.findall(r"unused parameter: (.*)", used.stderr))),
                types=frozenset(types.result().stdout.split()),
            )
            origin = pool.submit(self._origin, facts)
            authorities, server = pool.submit(self._authorities, facts), pool.submit(self._server, facts)
            facts = self._with_login(replace(facts, maps=self._maps(facts), reaches_provider=self._reaches(facts)))
            facts = replace(facts, origin=origin.result(), server=server.result())
            bundle, count, trusted = authorities.result()
        return replace(facts, ca_bundle=bundle, ca_count=count, trusts_provider=trusted)

    def _expected(self) -> Facts:
        relay = outside(self._lab)
        return Facts(
            mailname=self._defined.mailname,
            provider=relay.host if relay else self._lab.defined.name(Role.SUBMISSION),
            port=relay.port if relay else 587,
            student=f"{STUDENT}@{self._defined.mailname}",
            domains=tuple(domain.name for domain in self._defined.domains),
            outside=relay is not None,
            machine=self._service.name,
            user=self._lab.line("secrets", "reveal", "relay", "--login"),
            addresses=tuple(self._service.addresses.values()),
        )

    def _origin(self, facts: Facts) -> str:
        """Return the name that myorigin stands for: it may be in a file, as in Debian's /etc/mailname."""
        value = facts.setting("myorigin")
        if not value.startswith("/"):
            return value
        return next(iter(self.run("cat", value).stdout.split()), "")

    def _reaches(self, facts: Facts) -> bool:
        host = facts.next_hop.host
        if not host or facts.outside:
            return host == facts.provider
        found = {line.split()[0] for line in self.run("getent", "ahostsv4", host).stdout.splitlines() if line}
        return bool(found & set(self._lab.one(Role.SUBMISSION).addresses.values()))

    # ── the map of passwords ───────────────────────────────────────────────────────────────────────────────────

    def _maps(self, facts: Facts) -> tuple[PasswordMap, ...]:
        tables = password_maps(facts.setting("smtp_sasl_password_maps"))
        paths = [path for table in tables if table.path.startswith("/") for path in (table.path, table.file)]
        lines = self.run("sh", "-c", _STAT, "sh", *paths).stdout.splitlines() if paths else []
        found = {fields[3]: fields for fields in (line.split(" ", 3) for line in lines)}
        return tuple(with_files(table, found) for table in tables)

    def _with_login(self, facts: Facts) -> Facts:
        """Return the facts with the user that the map leads to, and whether the provider would accept the login."""
        relayhost = facts.setting("relayhost")
        # postmap(1) would log that it cannot open the others.
        tables = [f"{table.type}:{table.path}" for table in facts.maps if table.readable and table.type in facts.types]
        # The order of Postfix (SASL_README): the name of the host first, then the next hop as it is written.
        keys = dict.fromkeys(filter(None, (NextHop.parse(relayhost).host, relayhost)))
        for key, table in ((key, table) for key in keys for table in tables):
            found = self.run("postmap", "-q", key, table)
            if found.code == 0 and found.stdout.strip():
                user, _, password = found.stdout.removesuffix("\n").partition(":")
                return replace(facts, key=key, login_user=user, login=self._login(user, password))
        return replace(facts, login=Login.MISSING)

    def _login(self, user: str, password: str) -> Login:
        if outside(self._lab):
            return Login.ACCEPTED  # only the provider there can tell
        known = {address: secret.reveal() for address, secret in files.passwords(self._lab.directory.files).items()}
        relay = files.read_relay(self._lab.directory.files)
        return login_verdict(self._defined, user, password, known, (relay[0], relay[1].reveal()) if relay else None)

    # ── TLS ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _authorities(self, facts: Facts) -> tuple[str, int, bool]:
        """Return the file of CAs, the number of certificates in it, and whether the provider's CA is one of them."""
        file, directory = facts.setting("smtp_tls_CAfile"), facts.setting("smtp_tls_CApath")
        places = [*([file] if file else []), *([f"{directory}/"] if directory else [])]
        if not places:
            return "", 0, False
        text = self.run("find", "-L", *places, "-maxdepth", "1", "-type", "f", "-exec", "cat", "{}", "+").stdout
        found = certificates(text)
        if outside(self._lab):
            return places[0], len(found), bool(found)
        return places[0], len(found), certificates(self._lab.ca_file.read_text(encoding="utf-8")) <= found

    def _server(self, facts: Facts) -> Server:
        """Return key and certificate of the machine's own server, and why they cannot be used."""
        chain_files = re.split(r"[,\s]+", facts.setting("smtpd_tls_chain_files"))[0]
        certificate = chain_files or facts.setting("smtpd_tls_cert_file")
        key = chain_files or facts.setting("smtpd_tls_key_file") or certificate
        if not certificate or not key:
            return Server(certificate, key)
        halves = []
        for path, argv in ((certificate, ("x509", "-noout", "-pubkey")), (key, ("pkey", "-pubout"))):
            result = self.run("openssl", *argv, "-in", path)
            if result.code != 0:
                what = "certificate" if argv[0] == "x509" else "private key"
                return Server(certificate, key, f"there is no {what} in {path}")
            halves.append(result.stdout)
        return Server(certificate, key, "" if halves[0] == halves[1] else "the key is not the certificate's")


_READ = (("postconf", "-x"), ("postconf", "-M"), ("postconf", "-n"))


def outside(lab: RunningLab) -> Relay | None:
    """Return the relay host outside the lab, if it has one."""
    host, _, port = lab.state.relay.strip("[]").replace("]", "").partition(":")
    return Relay(host, int(port)) if port.isdecimal() else Relay(host) if host else None


def _fatal(text: str) -> str:
    """Return the line of Postfix's output that says why it cannot read its configuration."""
    lines = [line for line in text.splitlines() if "fatal: " in line] or text.splitlines()[-1:]
    return next((line.partition("fatal: ")[2] or line for line in lines), "no reason given")


def unread(times: str) -> str:
    """Return a file that is newer than Postfix's last look at it: `seconds name` a line, `read` for the look."""
    moments = {name: int(seconds) for seconds, _, name in (line.partition(" ") for line in times.splitlines())}
    read = moments.pop("read", None)
    return next((name for name, changed in moments.items() if read is not None and changed > read), "")


def parse_settings(text: str) -> dict[str, str]:
    """Return the `name = value` lines that postconf(1) prints."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def with_files(table: PasswordMap, found: dict[str, list[str]]) -> PasswordMap:
    """Return a table with the state of its files: path → time, mode, owner and path of those that are there."""
    if not table.path.startswith("/"):
        return table
    text, index = found.get(table.path), found.get(table.file)
    exposed = next((each for each in (text, index) if each and (each[1][-2:] != "00" or each[2] != "root")), None)
    return replace(
        table,
        text=text is not None,
        index=index is not None,
        stale=bool(table.indexed and text and index and int(text[0]) > int(index[0])),
        exposed=f"0{exposed[1]} {exposed[2]} {exposed[3]}" if exposed else "",
    )


def login_verdict(
    defined: Lab, user: str, password: str, known: dict[str, str], relay: tuple[str, str] | None
) -> Login:
    """Return what the lab's provider would say to a login, and to mail of the student after it, by the lab's files."""
    accepted = {**known, **({relay[0]: relay[1]} if relay else {})}
    # Dovecot compares user names in lower case (auth_username_format).
    name = next((each for each in accepted if each.lower() == user.lower()), None)
    if name is None:
        return Login.UNKNOWN_USER
    if accepted[name] != password:
        return Login.WRONG_PASSWORD
    if relay and name == relay[0]:
        return Login.ACCEPTED
    student = f"{STUDENT}@{defined.mailname}"
    owners = [student, *chain.from_iterable(alias.targets for alias in defined.aliases if alias.address == student)]
    return Login.ACCEPTED if name in owners else Login.NOT_OWNER


def certificates(text: str) -> set[bytes]:
    """Return the certificates of a text in PEM, as DER."""
    return {base64.b64decode(found) for found in _CERTIFICATE.findall(text)}
