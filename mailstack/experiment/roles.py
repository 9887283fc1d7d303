"""The roles in the lab: the student's machine, the provider, and a provider outside instead of it."""

from __future__ import annotations

import smtplib

from mailstack.actions import sending
from mailstack.checks.judging import Unmet, expect
from mailstack.config import files, pki
from mailstack.engine.engine import Engine
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.first_mail import event
from mailstack.experiment.scene import TTL_SECONDS, Scene
from mailstack.experiment.step import Steps
from mailstack.lab import claims, homes
from mailstack.lab.running import RunningLab
from mailstack.lab.up import Request
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Relay
from mailstack.protocol import smtp
from mailstack.secret import Secret, write_private

steps = Steps()


@steps(
    "roles",
    "The student's machine, and its provider",
    row="sender is the student's machine: its own Postfix, with the relay settings, and mail. postfix and dovecot are "
    "the provider: submission on 587 with STARTTLS and AUTH, the mailboxes, IMAP.",
    done="Read each machine's first process, the sender's version of mail and its relay, and what the provider's port "
    "587 offers without and with TLS; logged in there as the relay's user, and over IMAP as the recipient.",
    expected="Postfix on sender and postfix, Dovecot on dovecot; mail is installed; 587 offers STARTTLS, AUTH only "
    "under TLS, and accepts the user (235); the mailbox opens over IMAP.",
)
def machines_play_their_roles(scene: Scene, show: Evidence) -> None:
    services = ("dovecot", "postfix", "sender")
    first = {service: scene.output(service, "cat", "/proc/1/comm").strip() for service in services}
    agent = scene.output("sender", "mail", "--version").splitlines()[0]
    relayhost = scene.settings("sender")["relayhost"]
    user, password = scene.relay
    show.table("the first processes", ("machine", "process"), first.items())
    expect(first == {"sender": "init", "postfix": "master", "dovecot": "dovecot"}, f"the first processes are {first}")
    try:
        clear, under_tls, code, text = _submission(scene, user, password)
    except smtplib.SMTPException as error:
        raise Unmet(f"587 of the provider: {error}") from None
    with scene.box(scene.recipient) as box:
        greeting, folders = box.client.welcome.decode(), [folder.name for folder in box.folder.list()]
    show.table(
        "the roles of the machines",
        ("machine", "role", "evidence"),
        [
            ("sender", "the student's machine", f"{agent}; relayhost = {relayhost}"),
            ("postfix", "the provider: submission", f"587: {code} {text}"),
            ("dovecot", "the provider: mailboxes", f"{greeting}; folders: {', '.join(folders)}"),
        ],
    )
    show.text("587 in the clear offers", "\n".join(clear))
    show.text("587 under TLS offers", "\n".join(under_tls))
    expect("STARTTLS" in clear, "587 does not offer STARTTLS")
    expect(not any(line.startswith("AUTH") for line in clear), "587 offers AUTH in the clear")
    expect(any(line.startswith("AUTH") for line in under_tls), "587 does not offer AUTH under TLS")
    expect(code == 235, f"587 did not accept the relay's user: {code} {text}")
    expect("INBOX" in folders, "there is no INBOX")


def _submission(scene: Scene, user: str, password: Secret) -> tuple[list[str], list[str], int, str]:
    """Return what port 587 offers (EHLO) without and with TLS, and its reply to a login."""
    dial = smtp.dial_to(scene.lab.endpoints["submission"])
    with smtp.Smtp(dial, name="localhost") as session:
        clear = session.ehlo()[1].decode().splitlines()[1:]
    with smtp.Smtp(dial, name="localhost", tls="starttls", context=scene.lab_context) as session:
        under_tls = session.ehlo()[1].decode().splitlines()[1:]
        code, text = session.login(user, password.reveal())
    return clear, under_tls, code, text.decode()


# ── a provider outside ───────────────────────────────────────────────────────────────────────────────────────────

HOST = "smtp.provider.test"  # a name that nobody owns: RFC 6761, section 6.2


def prepare(engine: Engine, name: str) -> None:
    """Create the certificates of a new lab. Its Postfix also gets the name by which the second lab connects to it."""
    directory = homes.directory(engine, name)
    directory.make()
    made = pki.make({**files.SERVER_NAMES, "postfix": (*files.SERVER_NAMES["postfix"], HOST)})
    write_private(directory.files / "ca.pem", made.ca)
    for service, pem in made.servers.items():
        write_private(directory.files / f"{service}.pem", pem.reveal())


@steps(
    "outside",
    "A real provider outside takes the place of the one in the lab",
    row="With relay.yaml, a real provider outside takes the place of the provider in the lab, and the credentials are "
    "the user's own.",
    done=f"Brought up a second lab with relay.yaml, whose relay is {HOST}:587 (the first lab's provider, by a network "
    "between the two) and whose credentials are the recipient's own; sent a mail from its student's machine.",
    expected=f"Its relayhost is [{HOST}]:587; that provider accepted the mail, authenticated as the user whose "
    "credentials these are, and is in a mailbox there; the second lab's own Postfix never saw it.",
)
def outside_provider_takes_over(scene: Scene, show: Evidence) -> None:
    scene.container("dovecot")  # the provider needs it for logins
    user = scene.recipient
    reader = next(address for address in scene.lab.definition().addresses() if address not in (user, scene.student))
    message_id = scene.new_id(user, "outside")
    customer = _customer(scene, user)
    sender, own = (customer.service(service).container for service in ("sender", "postfix"))
    relayhost = scene.engine.execute(sender, ["postconf", "-h", "relayhost"]).stdout.strip()
    show.text("relayhost on the student's machine of the second lab", relayhost)
    sending.from_sender(customer, sending.Letter(user, (reader,), "Through the world", "Hello."), message_id)
    copies = scene.arrived(reader, message_id)
    scene.lines("postfix", message_id, ": removed")
    accepted = event(scene.trace(message_id), "postfix", "accepted")
    show.text("the log of the outside provider", accepted.line.text)
    expect(relayhost == f"[{HOST}]:587", f"relayhost is {relayhost}")
    expect("/submission/" in accepted.line.program, f"it was accepted by {accepted.line.program}, not by submission")
    expect(accepted.sasl_user == user, f"{accepted.sasl_user or 'nobody'} was authenticated, not {user}")
    expect(message_id not in scene.engine.logs(own), "the second lab's own Postfix had the mail")
    expect(len(copies) == 1, f"{len(copies)} copies")


def _customer(scene: Scene, user: str) -> RunningLab:
    """Bring up a lab with the first lab's provider as relay host. It is removed when the experiment ends."""
    first = scene.lab
    place = first.directory.path  # private, on tmpfs, and removed with the lab
    write_private(place / "credentials", f"{user}:{first.password(user).reveal()}\n")
    network = scene.second.network
    write_private(place / "world.yaml", f"networks: {{outside: !override {{external: true, name: {network}}}}}\n")

    def connect() -> None:
        labels = {LABEL_LAB: first.name, LABEL_OWNER: first.state.owner, LABEL_EXPIRES: first.state.expires}
        claims.make_network(scene.engine, network, labels)
        scene.engine.join(network, scene.container("postfix"), HOST)

    overlays, own = (place / "world.yaml",), place / "credentials"
    request = Request(scene.second.name, overlays, Relay(HOST), own, first.ca_file, ttl=TTL_SECONDS)
    return scene.second.bring_up(request, connect)
