"""A relay host outside: simulated by another lab, on a network that only the sender's outgoing network reaches."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from imap_tools import MailMessage

from mailstack import state
from mailstack.actions import sending
from mailstack.config import files, pki
from mailstack.engine import projects
from mailstack.errors import CheckFailed, CredentialsError, InputError
from mailstack.lab import homes, up
from mailstack.lab.running import RunningLab
from mailstack.lab.up import Request
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Deadline, Relay
from mailstack.protocol import imap, trust
from mailstack.secret import write_private
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

HOST = "smtp.provider.test"
ARRIVAL_SECONDS = 15.0


@dataclass(frozen=True)
class Provider:
    """A relay host outside, and all that its customer needs: overlay, credentials, CA."""

    lab: RunningLab
    overlay: Path  # joins a lab's way out to the network where the provider is
    credentials: Path
    ca: Path

    def request(self, name: str, **changed: object) -> Request:
        """Return the request of `mailstack up --relay …`."""
        wanted: dict[str, object] = {
            "name": name,
            "overlays": (self.overlay,),
            "relay": Relay(HOST),
            "credentials": self.credentials,
            "relay_ca": self.ca,
        }
        return Request(**{**wanted, **changed})  # type: ignore[arg-type]


def _private(path: Path, text: str) -> Path:
    write_private(path, text)
    return path


@pytest.fixture(scope="module")
def provider(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """Return a lab whose Postfix has a public name, and an outside network that reaches it by that name."""
    directory = tmp_path_factory.mktemp("provider")
    client = docker.from_env()

    def certificates(name: str) -> None:
        # There before `up` would make its own: it keeps those that hold.
        there = homes.directory(engines.here(), name)
        there.make()
        made = pki.make({**files.SERVER_NAMES, "postfix": (*files.SERVER_NAMES["postfix"], HOST)})
        write_private(there.files / "ca.pem", made.ca)
        for service, pem in made.servers.items():
            write_private(there.files / f"{service}.pem", pem.reveal())

    with labs.one("provider", prepare=certificates) as running:
        labels = {LABEL_LAB: running.name, LABEL_OWNER: state.owner(), LABEL_EXPIRES: "never"}
        world = client.networks.create(f"{projects.project_name(running.name)}_world", labels=labels)
        try:
            world.connect(running.service("postfix").container, aliases=[HOST])
            overlay = directory / "world.yaml"
            overlay.write_text(
                f"networks:\n  outside: !override\n    external: true\n    name: {world.name}\n", encoding="utf-8"
            )
            relay = files.read_relay(running.directory.files)
            assert relay
            user, password = relay
            credentials = _private(directory / "credentials", f"{user}:{password.reveal()}\n")
            ca = directory / "provider-ca.pem"
            ca.write_text(running.ca_file.read_text(), encoding="utf-8")
            yield Provider(running, overlay, credentials, ca)
        finally:
            with contextlib.suppress(docker.errors.APIError):
                world.disconnect(running.service("postfix").container, force=True)
            world.remove()


@pytest.fixture
def customer(provider: Provider, labs: Labs) -> Iterator[str]:
    """Yield the name of the provider's customer, whose lab is removed before the provider's."""
    name = labs.new_name("customer")
    yield name
    labs.down(name)


def _quiet(_: str) -> None:
    pass


def _wait_there(provider: Provider, address: str, message_id: str) -> MailMessage:
    """Return the mail in a mailbox of the provider. Raises DeadlinePassed."""
    there = provider.lab
    context = trust.tls_context(there.ca_file)
    with imap.mailbox(there.endpoints["imaps"], context, address, there.password(address)) as box:
        return imap.wait_for(box, message_id, Deadline.after(ARRIVAL_SECONDS))


def _nothing_left(name: str) -> bool:
    return not engines.here().leftovers(name, state.owner()) and not homes.directory(engines.here(), name).path.exists()


def test_a_mail_from_the_sender_goes_through_the_relay_outside_and_arrives_there(
    provider: Provider, customer: str
) -> None:
    up.up(engines.here(), provider.request(customer), _quiet)
    own = RunningLab(customer, engines.here())
    letter = sending.letter(
        provider.lab.definition(), "student@example.com", ["carol@example.org"], "Through the world", "Hello.", []
    )
    sent = sending.send(own, letter, "sender", Deadline.after(ARRIVAL_SECONDS))
    found = _wait_there(provider, letter.recipients[0], sent.message_id)
    assert found.subject == "Through the world"
    # Two stations: the sender handed it to the provider outside, under TLS and logged in, and to nobody else.
    hops = found.headers["received"]
    assert any("from sender.example.com" in hop and "ESMTPSA" in hop for hop in hops), hops
    with imap.mailbox(
        own.endpoints["imaps"], trust.tls_context(own.ca_file), "carol@example.org",
        own.password("carol@example.org"),
    ) as box:  # fmt: skip
        assert not imap.find(box, sent.message_id)


def test_a_password_beyond_ascii_logs_in(provider: Provider, customer: str, tmp_path: Path) -> None:
    # In place: the container has this file, and not one that takes its name.
    secret = provider.lab.directory.files / "relay"
    before = secret.read_text()
    user, password = before.partition(":")[0], "pässwörd € 郵便"
    secret.write_text(f"{user}:{password}\n")
    try:
        request = provider.request(customer, credentials=_private(tmp_path / "secret", f"{user}:{password}\n"))
        up.up(engines.here(), request, _quiet)
        letter = sending.letter(
            provider.lab.definition(), "student@example.com", ["carol@example.org"], "Ä", "Hello.", []
        )
        sent = sending.send(RunningLab(customer, engines.here()), letter, "sender", Deadline.after(ARRIVAL_SECONDS))
        _wait_there(provider, letter.recipients[0], sent.message_id)  # the sender's Postfix has logged in, too
    finally:
        secret.write_text(before)


def test_a_wrong_password_ends_up_with_2_and_the_relays_reply_and_leaves_nothing(
    provider: Provider, customer: str, tmp_path: Path
) -> None:
    user = provider.credentials.read_text().partition(":")[0]
    wrong = _private(tmp_path / "wrong", f"{user}:not-the-password-of-anybody\n")
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mailstack",
                "up",
                "-n",
                customer,
                "-f",
                provider.overlay,
                "--relay",
                f"{HOST}:587",
            ),
            *("--relay-credentials", wrong, "--relay-ca", provider.ca, "--progress", "quiet", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=dict(os.environ),
    )
    assert run.returncode == CredentialsError.exit_code == 2, run.stderr
    assert run.stdout == ""
    assert f"the relay {HOST}:587 refused the credentials: 535 5.7.8" in run.stderr
    assert "not-the-password-of-anybody" not in run.stderr
    assert _nothing_left(customer)


def test_without_its_ca_the_relay_is_not_trusted_and_sees_no_password(provider: Provider, customer: str) -> None:
    before = len(provider.lab.engine.logs(provider.lab.service("postfix").container).splitlines())
    with pytest.raises(
        CheckFailed, match=rf"certificate of the relay {HOST}:587 is not valid: .*(issuer|chain)"
    ) as caught:
        up.up(engines.here(), provider.request(customer, relay_ca=None), _quiet)
    assert "--relay-ca" in caught.value.remedy
    log = provider.lab.engine.logs(provider.lab.service("postfix").container).splitlines()[before:]
    assert not [line for line in log if " auth=" in line or "sasl_method" in line], log
    assert _nothing_left(customer)


def test_a_certificate_for_another_name_is_refused(provider: Provider, customer: str) -> None:
    postfix = provider.lab.service("postfix").container
    address = docker.from_env().containers.get(postfix).attrs["NetworkSettings"]["Networks"]
    (world,) = [each for network, each in address.items() if network.endswith("_world")]
    with pytest.raises(CheckFailed, match=r"is not valid: .*mismatch"):
        up.up(engines.here(), provider.request(customer, relay=Relay(world["IPAddress"])), _quiet)
    assert _nothing_left(customer)


@pytest.mark.parametrize(
    ("relay", "reason"),
    [
        (Relay(HOST, 2525), "refused"),
        (Relay("nobody.provider.test"), "resol|not known|no address|lookup"),
        (Relay(HOST, 25), "offers no TLS, or no authentication"),
    ],
    ids=["nobody listens", "no such name", "no AUTH"],
)
def test_a_relay_that_cannot_be_asked_says_why(provider: Provider, customer: str, relay: Relay, reason: str) -> None:
    with pytest.raises(CheckFailed, match=rf"the relay {relay.host}:{relay.port} .*({reason})"):
        up.up(engines.here(), provider.request(customer, relay=relay), _quiet)
    assert _nothing_left(customer)


def test_the_relays_submissions_port_is_asked_under_tls_from_the_start(provider: Provider, customer: str) -> None:
    up.up(engines.here(), provider.request(customer, relay=Relay(HOST, 465)), _quiet)
    letter = sending.letter(provider.lab.definition(), "student@example.com", ["bob@example.com"], "465", "Hello.", [])
    sent = sending.send(RunningLab(customer, engines.here()), letter, "sender", Deadline.after(ARRIVAL_SECONDS))
    there = provider.lab
    with imap.mailbox(
        there.endpoints["imaps"], trust.tls_context(there.ca_file), "bob@example.com", there.password("bob@example.com")
    ) as box:
        imap.wait_for(box, sent.message_id, Deadline.after(ARRIVAL_SECONDS))


MISTAKES = {
    "missing": (None, 0o600, "does not exist"),
    "empty": ("", 0o600, "is empty"),
    "malformed": ("no colon in it\n", 0o600, "do not have the form user:password"),
    "two lines": ("a:b\nc:d\n", 0o600, "should be one line"),
    "world-readable": ("user:canary-4711\n", 0o644, "other users can read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_credentials_file_has_its_own_message_before_anything_is_made(
    labs: Labs, tmp_path: Path, mistake: str
) -> None:
    name = labs.new_name("customer")
    text, mode, message = MISTAKES[mistake]
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    with pytest.raises(CredentialsError, match=message) as caught:
        up.up(engines.here(), up.Request(name, relay=Relay(HOST), credentials=path), _quiet)
    assert str(path) in caught.value.message
    assert "canary-4711" not in json.dumps([caught.value.message, caught.value.remedy, caught.value.details])
    assert _nothing_left(name)


@pytest.mark.parametrize(
    "text", [None, "", "-----BEGIN CERTIFICATE-----\nbroken\n"], ids=["missing", "empty", "broken"]
)
def test_a_ca_file_that_is_none_is_refused_before_anything_is_made(
    labs: Labs, tmp_path: Path, text: str | None
) -> None:
    name = labs.new_name("customer")
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    credentials = _private(tmp_path / "credentials", "user:password\n")
    with pytest.raises(InputError, match=r"ca\.pem"):
        up.up(engines.here(), up.Request(name, relay=Relay(HOST), credentials=credentials, relay_ca=path), _quiet)
    assert _nothing_left(name)
