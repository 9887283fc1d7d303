"""Step 3: compare every setting of the original main.cf with the effective one, and explain the differences."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mailstack.checks.judging import expect
from mailstack.config.render import POSTFIX_HOST
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import parse_settings
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps

steps = Steps()

# A further check on the lab, besides the value; raises Unmet.
SettingCheck = Callable[[Scene, Evidence], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the original main.cf, its current name, and the value that it must have."""

    name: str
    value: str  # in the original
    current_name: str  # the current name; the same if nothing has changed
    pattern: str  # regular expression for the effective value
    pattern_meaning: str  # the pattern in words
    difference: str  # why the two differ
    check: SettingCheck | None = None
    check_meaning: str = ""  # the expectation of `check` in words

    @property
    def expectation(self) -> str:
        """Return what is expected of the effective setting, as a sentence."""
        value = f"{self.current_name} is {self.pattern_meaning}"
        return f"{value}; {self.check_meaning}." if self.check_meaning else f"{value}."


_SAME = "There is none."
_LMDB = (
    "hash: and btree: are files of Berkeley DB, which is no longer maintained as free software and which distributions "
    "leave out; Postfix documents lmdb: in its place (NON_BERKELEYDB_README, lmdb_table(5))."
)
_CHAIN = (
    "Since Postfix 3.4 key and certificate stand in one file, so that they are always a pair (postconf(5), "
    "smtpd_tls_chain_files). They are signed by the lab's own CA: nobody could verify a self-signed pair."
)


def _authorities(scene: Scene, show: Evidence) -> None:
    """Expect Debian's CAs and the lab's own CA in the file."""
    authorities = scene.output("sender", "cat", scene.settings("sender")["smtp_tls_CAfile"])
    own = scene.lab.ca_file.read_text(encoding="utf-8").strip()
    count = authorities.count("-----BEGIN CERTIFICATE-----")
    show.text("in the file", f"{count} certificates, {'with' if own in authorities else 'without'} the lab's CA")
    expect(count > 1, "Debian's CAs are not in it")
    expect(own in authorities, "the lab's CA is not in it")


def _certificate(scene: Scene, show: Evidence) -> None:
    place = scene.settings("sender")["smtpd_tls_chain_files"]
    fields = ("-noout", "-subject", "-issuer", "-enddate", "-ext", "subjectAltName")
    show.text("the certificate", scene.output("sender", "openssl", "x509", "-in", place, *fields))


def _pair(scene: Scene, show: Evidence) -> None:
    """Expect that key and certificate have the same public key."""
    place = scene.settings("sender")["smtpd_tls_chain_files"]
    of_certificate = scene.output("sender", "openssl", "x509", "-in", place, "-noout", "-pubkey")
    of_key = scene.output("sender", "openssl", "pkey", "-in", place, "-pubout")
    show.table(
        "the public halves", ("of", "key"), [("the certificate", _short(of_certificate)), ("the key", _short(of_key))]
    )
    expect(of_certificate == of_key, "the key does not belong to the certificate")


def _short(pem: str) -> str:
    return f"{''.join(pem.splitlines()[1:-1])[:40]}…"


def _offers_tls(scene: Scene, show: Evidence) -> None:
    argv = ("openssl", "s_client", "-brief", "-starttls", "smtp", "-connect", "127.0.0.1:25")
    result = scene.execute("sender", *argv, input=b"QUIT\n")
    show.text(" ".join(argv), result.stderr)
    expect("CONNECTION ESTABLISHED" in result.stderr, "the server on the student's machine has no TLS")


def _cached(name: str) -> SettingCheck:
    def check(scene: Scene, show: Evidence) -> None:
        file = f"{scene.settings('sender')[name].partition(':')[2]}.lmdb"
        show.text("the map in the data directory", scene.output("sender", "ls", "-l", file))

    return check


SETTINGS = (
    Setting(
        "relayhost",
        "[the provider]:587 (in the course: Gmail's)",
        "relayhost",
        re.escape(f"[{POSTFIX_HOST}]:587"),
        f"[{POSTFIX_HOST}]:587",
        "The provider in the lab takes the place of the one outside. The brackets say: this host, not its MX.",
    ),
    Setting("smtp_sasl_auth_enable", "yes", "smtp_sasl_auth_enable", "yes", "yes", _SAME),
    Setting(
        "smtp_sasl_security_options", "noanonymous", "smtp_sasl_security_options", "noanonymous", "noanonymous", _SAME
    ),
    Setting(
        "smtp_sasl_password_maps",
        "hash:/etc/postfix/sasl_passwd",
        "smtp_sasl_password_maps",
        r"lmdb:/run/\S+",
        "an lmdb map on tmpfs",
        f"{_LMDB} The file is on tmpfs, under /run: the password is on no disk.",
    ),
    Setting(
        "smtp_use_tls",
        "yes",
        "smtp_tls_security_level",
        "verify|secure",
        "verify or secure",
        "Obsolete since Postfix 2.3: “yes” meant TLS where the server offers it, else in the clear. “secure” wants "
        "TLS, and a certificate that is verified for the relay's name, before any password is sent (TLS_README).",
    ),
    Setting(
        "smtp_tls_CAfile",
        "/etc/ssl/certs/ca-certificates.crt",
        "smtp_tls_CAfile",
        r"/\S+/ca-certificates\.crt",
        "a ca-certificates.crt",
        "Debian's authorities as in the original, and the lab's own CA besides, in a file made at the start.",
        _authorities,
        "Debian's authorities and the lab's own are in it",
    ),
    Setting("readme_directory", "no", "readme_directory", "no", "no", _SAME),
    Setting(
        "smtpd_tls_cert_file",
        "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        "smtpd_tls_chain_files",
        r"/run/secrets/\S+",
        "a secret of the container",
        _CHAIN,
        _certificate,
        "there is a certificate in it",
    ),
    Setting(
        "smtpd_tls_key_file",
        "/etc/ssl/private/ssl-cert-snakeoil.key",
        "smtpd_tls_chain_files",
        r"/run/secrets/\S+",
        "a secret of the container",
        _CHAIN,
        _pair,
        "the key in it is the certificate's",
    ),
    Setting(
        "smtpd_use_tls",
        "yes",
        "smtpd_tls_security_level",
        "may|encrypt",
        "may or encrypt",
        "Obsolete since Postfix 2.3: “may” is the “yes” of today, TLS for clients that ask for it (TLS_README).",
        _offers_tls,
        "the server on the machine makes TLS connections",
    ),
    Setting(
        "smtpd_tls_session_cache_database",
        "btree:${data_directory}/smtpd_scache",
        "smtpd_tls_session_cache_database",
        r"lmdb:/var/lib/postfix/smtpd_scache",
        "an lmdb map in the data directory",
        _LMDB,
        _cached("smtpd_tls_session_cache_database"),
        "the map is there",
    ),
    Setting(
        "smtp_tls_session_cache_database",
        "btree:${data_directory}/smtp_scache",
        "smtp_tls_session_cache_database",
        r"lmdb:/var/lib/postfix/smtp_scache",
        "an lmdb map in the data directory",
        _LMDB,
        _cached("smtp_tls_session_cache_database"),
        "the map is there",
    ),
)


def fits(setting: Setting, value: str) -> bool:
    """Return whether an effective value fulfils the original setting."""
    return re.fullmatch(setting.pattern, value) is not None


def warnings(scene: Scene) -> list[str]:
    """Return Postfix's own warnings about the original, which postconf(1) reads as a main.cf."""
    # Postfix waits up to two seconds before it reads a file that has just changed.
    script = (
        "set -e; cd $(mktemp -d); cat > main.cf; touch -d yesterday main.cf master.cf; postconf -c . -n; rm -r $PWD"
    )
    original = {setting.name: setting.value for setting in SETTINGS}
    text = "".join(f"{name} = {value}\n" for name, value in original.items())

    def check() -> list[str]:
        result = scene.execute("sender", "sh", "-c", script, input=text.encode())
        expect(result.code == 0, f"postconf could not read the original: {result.stderr.strip()}")
        missing = original.keys() - parse_settings(result.stdout).keys()
        expect(not missing, f"postconf did not read {', '.join(sorted(missing))} of the original: {result.stdout}")
        return [line.partition("main.cf: ")[2] for line in result.stderr.splitlines() if "main.cf: " in line]

    return scene.once("warnings", check)


def compare(setting: Setting) -> Callable[[Scene, Evidence], None]:
    """Return the function of a setting's step."""

    def check(scene: Scene, show: Evidence) -> None:
        value = scene.settings("sender").get(setting.current_name, "")
        show.table(
            "side by side",
            ("", "setting", "value"),
            [("original", setting.name, setting.value), ("in effect", setting.current_name, value)],
        )
        lines = [line for line in warnings(scene) if f'"{setting.name}"' in line]
        show.text("the difference, and its reason", setting.difference)
        if lines:
            show.text("what Postfix says about the original", "\n".join(lines))
        expect(fits(setting, value), f"{setting.current_name} is “{value}”, not {setting.pattern_meaning}")
        if setting.check:
            setting.check(scene, show)

    return check


for _setting in SETTINGS:
    steps(
        _setting.name,
        f"{_setting.name}, compared with the effective setting",
        row=f"Step 3: the student adds to main.cf: {_setting.name} = {_setting.value}",
        done=f"Read {_setting.current_name} with postconf on the sender, and its warnings about the original.",
        expected=_setting.expectation,
        # The maps of TLS sessions exist after the first session.
        needs=("send",) if "session_cache" in _setting.name else (),
    )(compare(_setting))
