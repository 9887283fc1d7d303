"""Every step of the experiment fails on a lab that is broken in the way that it tests, by its own judgement.

Most breakages are applied to one lab one after the other, and reverted. A step that no breakage fails makes the last
test fail.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from mailstack.actions import credentials
from mailstack.config import pki
from mailstack.config.files import SERVER_NAMES
from mailstack.experiment import machines, queue, scene
from mailstack.experiment.performance import all_steps
from mailstack.experiment.roles import prepare
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Outcome, judge
from mailstack.lab.running import RunningLab
from mailstack.model import Verdict
from mailstack.secret import new_password, write_private
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

STEPS = {step.id: step for step in all_steps()}

Breakage = Callable[[RunningLab], AbstractContextManager[None]]


@dataclass(frozen=True)
class Red:
    """A way to break the lab, the step that it fails, and the expected reason (a regular expression)."""

    step: str
    says: str
    broken: Breakage
    before: tuple[str, ...] = ()  # steps that pass on the broken lab, and without which this one has nothing to look at


# ── ways to break a lab ────────────────────────────────────────────────────────────────────────────────────────────


def _do(lab: RunningLab, service: str, script: str) -> None:
    done = lab.engine.execute(lab.service(service).container, ["sh", "-ec", script])
    assert done.code == 0, done.stderr


# As they were, and no longer brand-new: Postfix waits for that.
_BACK = "cp -p /tmp/main.cf /tmp/master.cf /etc/postfix; postfix reload"


def _postfix(service: str, **settings: str) -> Breakage:
    """Change settings in main.cf, or in master.cf if a name begins with that of a service (`submission__inet__…`)."""

    @contextlib.contextmanager
    def broken(lab: RunningLab) -> Iterator[None]:
        script = "cp -p /etc/postfix/main.cf /etc/postfix/master.cf /tmp"
        for name, value in settings.items():
            option = "-P" if "__" in name else "-e"
            script += f"; postconf {option} '{name.replace('__', '/')}={value}'"
        _do(lab, service, f"{script}; touch -d yesterday /etc/postfix/*.cf; postfix reload")
        try:
            yield
        finally:
            _do(lab, service, f"{_BACK}; postsuper -d ALL")

    return broken


def _header(service: str, rule: str) -> Breakage:
    """Add a rule on the header of every mail: header_checks(5)."""
    return _postfix(service, header_checks=f"regexp:{{ {{{rule}}} }}")


@contextlib.contextmanager
def _readable_map(lab: RunningLab) -> Iterator[None]:
    _do(lab, "sender", "chmod 0644 /run/relay/sasl_passwd")
    try:
        yield
    finally:
        _do(lab, "sender", "chmod 0600 /run/relay/sasl_passwd")


@contextlib.contextmanager
def _wrong_password(lab: RunningLab) -> Iterator[None]:
    user, password = credentials.of(lab, "relay")
    container = lab.service("sender").container
    credentials.hand_to_sender(lab.engine, container, f"{user}:{new_password().reveal()}\n")
    try:
        yield
    finally:
        credentials.hand_to_sender(lab.engine, container, f"{user}:{password.reveal()}\n")
        _do(lab, "sender", "postsuper -d ALL")


@contextlib.contextmanager
def _another_key(lab: RunningLab) -> Iterator[None]:
    """Pair the sender's certificate with another key."""
    file = lab.directory.files / "sender.pem"
    own = file.read_text()
    key = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
    other = key.search(pki.make(SERVER_NAMES).servers["sender"].reveal())
    assert other
    write_private(file, key.sub(other[0], own))
    try:
        yield
    finally:
        write_private(file, own)


@contextlib.contextmanager
def _nameless_mail(lab: RunningLab) -> Iterator[None]:
    """Put a mail without a subject into the recipient's mailbox."""
    with _header("postfix", "/^Subject:/ IGNORE")(lab):
        one = Scene(lab)
        assert judge(STEPS["mime"], one, {}).verdict is Verdict.PASS
    yield


REDS = (
    Red(
        "mailname", r"the system mail name is other\.test, not example\.com", _postfix("sender", myorigin="other.test")
    ),
    Red("credentials", r"not private to root: 644 root", _readable_map),
    Red(
        "roles",
        r"587 offers AUTH in the clear",
        _postfix("postfix", smtpd_tls_auth_only="no", submission__inet__smtpd_tls_security_level="may"),
    ),
    Red(
        "outside",
        r"the relay smtp\.provider\.test:587 offers no TLS, or no authentication",
        _postfix("postfix", submission__inet__smtpd_sasl_auth_enable="no"),
    ),
    Red("relayhost", r"relayhost is “\[other\]:587”", _postfix("sender", relayhost="[other]:587")),
    Red("smtp_sasl_auth_enable", r"is “no”, not yes", _postfix("sender", smtp_sasl_auth_enable="no")),
    Red(
        "smtp_sasl_security_options",
        r"is “noplaintext”, not noanonymous",
        _postfix("sender", smtp_sasl_security_options="noplaintext"),
    ),
    Red(
        "smtp_sasl_password_maps",
        r"is “hash:/etc/postfix/sasl_passwd”, not an lmdb map on tmpfs",
        _postfix("sender", smtp_sasl_password_maps="hash:/etc/postfix/sasl_passwd"),
    ),
    Red("smtp_use_tls", r"smtp_tls_security_level is “may”", _postfix("sender", smtp_tls_security_level="may")),
    Red(
        "smtp_tls_CAfile",
        r"the lab's CA is not in it",
        _postfix("sender", smtp_tls_CAfile="/etc/ssl/certs/ca-certificates.crt"),
    ),
    Red(
        "readme_directory",
        r"is “/usr/share/doc/postfix”",
        _postfix("sender", readme_directory="/usr/share/doc/postfix"),
    ),
    Red(
        "smtpd_tls_cert_file",
        r"smtpd_tls_chain_files is “/etc/ssl/snakeoil\.pem”",
        _postfix("sender", smtpd_tls_chain_files="/etc/ssl/snakeoil.pem"),
    ),
    Red("smtpd_tls_key_file", r"the key does not belong to the certificate", _another_key),
    Red("smtpd_use_tls", r"smtpd_tls_security_level is “none”", _postfix("sender", smtpd_tls_security_level="none")),
    Red(
        "smtpd_tls_session_cache_database",
        r"is “btree:/var/lib/postfix/smtpd_scache”",
        _postfix("sender", smtpd_tls_session_cache_database="btree:/var/lib/postfix/smtpd_scache"),
    ),
    Red(
        "smtp_tls_session_cache_database",
        r"is “lmdb:/tmp/smtp_scache”, not an lmdb map in the data directory",
        _postfix("sender", smtp_tls_session_cache_database="lmdb:/tmp/smtp_scache"),
    ),
    Red("send", r"^not sent: deferred \(SASL authentication failed; .*535 5\.7\.8", _wrong_password),
    Red(
        "tls-and-sasl",
        r"the provider's certificate was not verified: TLSv1\.3 .*, trusted",
        _postfix("sender", smtp_tls_security_level="encrypt"),
        ("send",),
    ),
    Red(
        "arrive",
        r"the subject is “another”",
        _header("postfix", "/^Subject: CCN/ REPLACE Subject: another"),
        ("send",),
    ),
    Red(
        "answer",
        r"In-Reply-To is missing, not the first mail's Message-ID",
        _header("postfix", "/^In-Reply-To:/ IGNORE"),
        ("send", "arrive"),
    ),
    Red(
        "parts",
        r"not seen: user agent of the sender$",
        _header("sender", "/^User-Agent:/ IGNORE"),
        ("send", "arrive"),
    ),
    Red(
        "message",
        r"the body is b'It was different",
        _postfix("postfix", body_checks="regexp:{ {/^This is/ REPLACE It was different} }"),
        ("send", "arrive"),
    ),
    Red(
        "hops",
        r"the hops are postfix\.example\.com, dovecot",
        _header("postfix", "/^Received: by sender/ IGNORE"),
        ("send", "arrive"),
    ),
    Red(
        "store-and-forward",
        r"postfix got no confirmation from the next hop",
        _postfix("postfix", virtual_transport="discard:"),
        ("send",),
    ),
    Red(
        "end-to-end",
        r"^not sent: bounced .*554 5\.7\.1",
        _postfix("postfix", smtp__inet__smtpd_client_restrictions="reject"),
        ("send", "arrive"),
    ),
    Red("dialogue", r"the provider refused: bob@example\.com bounced", _postfix("sender", smtp_sasl_auth_enable="no")),
    Red(
        "mime",
        r"the bytes that arrived are not those",
        _postfix("postfix", body_checks="regexp:{ {/^iVBORw0KGgo(.*)$$/ REPLACE iVBORw0KGgA$1} }"),
    ),
    Red("receiving", r"a mail is listed without its sender or its subject", _nameless_mail, ("send", "arrive")),
    Red("queue", r"is not in the mailbox .*: bounced in sender", _postfix("sender", smtp_sasl_auth_enable="no")),
)


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return the lab that is broken repeatedly."""
    with labs.one("red-experiment", prepare=lambda name: prepare(engines.here(), name)) as found:
        yield found


def _judged(lab: RunningLab, red: Red) -> Mapping[str, Outcome]:
    """Judge the step and those before it, each separately: the steps that it needs are not consulted."""
    one = Scene(lab)
    return {id: judge(STEPS[id], one, {}) for id in (*red.before, red.step)}


@pytest.mark.parametrize("red", REDS, ids=lambda red: red.step)
def test_a_broken_lab_makes_the_step_fail_that_shows_it(
    red: Red, lab: RunningLab, labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (machines, scene, queue):
        monkeypatch.setattr(module, "ARRIVAL_SECONDS", 4.0)
    with red.broken(lab):
        outcomes = _judged(lab, red)
    passed = {id: outcome.reason for id, outcome in outcomes.items() if id not in (red.step, "arrive")}
    assert set(passed.values()) <= {""}, passed
    outcome = outcomes[red.step]
    assert outcome.verdict is Verdict.FAIL
    assert re.search(red.says, outcome.reason), outcome.reason


# Nothing is installed, as far as dpkg knows.
NO_PACKAGES = "services: {sender: {tmpfs: [/var/lib/dpkg]}}"


def test_without_the_packages_the_first_step_fails(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> None:
    overlay = tmp_path_factory.mktemp("overlay") / "install.yaml"
    overlay.write_text(NO_PACKAGES)
    with labs.one("red-install", [overlay]) as lab:
        outcome = judge(STEPS["install"], Scene(lab), {})
    assert (outcome.verdict, outcome.reason) == (
        Verdict.FAIL,
        "not installed on the sender: postfix, sasl2-bin, mailutils",
    )


def test_every_step_has_a_breakage_that_makes_it_fail() -> None:
    # `install` has a test of its own, just above; `lab` fails with Dovecot broken, in test_experiment.py.
    assert {red.step for red in REDS} | {"install", "lab"} == set(STEPS)
    assert len({red.step for red in REDS}) == len(REDS)
