"""Steps 1 to 4: installation and configuration of the student's machine."""

from __future__ import annotations

from mailstack.checks.judging import Unmet, expect
from mailstack.errors import MailstackError
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps

steps = Steps()

WANTED = ("postfix", "sasl2-bin", "mailutils")
BESIDES = {
    "sender": ("postfix-lmdb", "libsasl2-modules", "ca-certificates", "openssl"),
    "postfix": ("postfix", "postfix-lmdb", "openssl"),
    "dovecot": ("dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "openssl"),
}


def packages(scene: Scene, service: str) -> dict[str, str]:
    """Return the relevant installed packages of a machine, with their versions: dpkg-query(1)."""
    wanted = (*(WANTED if service == "sender" else ()), *BESIDES[service])
    shape = "-f=${db:Status-Status} ${Package} ${Version}\\n"

    def look() -> dict[str, str]:
        lines = scene.execute(service, "dpkg-query", "-W", shape, *wanted).stdout.splitlines()
        return {line.split()[1]: line.split()[2] for line in lines if line.startswith("installed ")}

    return scene.once(f"packages of {service}", look)


@steps(
    "lab",
    "The lab is up, and proven with a mail",
    row="The software makes the experiment possible on any Docker host.",
    done="mailstack up: containers from the definition, credentials made for them, and a mail across them.",
    expected="All three services run, and a mail that was submitted with authentication could be read over IMAP.",
)
def lab_is_up(scene: Scene, show: Evidence) -> None:
    show.table(
        "the services",
        ("service", "image", "state", "addresses"),
        [(s.name, s.image, s.state, ", ".join(filter(None, s.addresses.values()))) for s in scene.services()],
    )
    if isinstance(scene.came_up, MailstackError):
        show.text("what `up` found", scene.came_up.details)
        raise Unmet(scene.came_up.message)
    if scene.came_up:
        proof = scene.came_up.verified
        show.text(
            f"up after {scene.came_up.seconds['total']:.1f} s, proven by this mail",
            f"{proof.message_id}: in the mailbox after {proof.milliseconds:.0f} ms",
        )
    ended = [state.name for state in scene.services() if state.state != "running"]
    expect(not ended, f"not running: {', '.join(ended)}")


@steps(
    "install",
    "Postfix, the SASL tools and mailutils are installed",
    row="Step 1: the student installs Postfix and the SASL tools, and mailutils.",
    done="Asked dpkg-query on each machine of the lab what is installed there.",
    expected="postfix, sasl2-bin and mailutils are installed on the student's machine.",
)
def packages_are_installed(scene: Scene, show: Evidence) -> None:
    found = {service: packages(scene, service) for service in BESIDES if service in scene.running}
    rows = [(service, name, version) for service, names in found.items() for name, version in names.items()]
    show.table("installed packages", ("machine", "package", "version"), rows)
    missing = [name for name in WANTED if name not in found.get("sender", {})]
    expect(not missing, f"not installed on the sender: {', '.join(missing)}")


@steps(
    "credentials",
    "The user name and the password are in a hashed map that only root may read",
    row="Step 4: the student writes user name and password into sasl_passwd, hashes it with postmap, restarts Postfix.",
    done="Wrote the credentials into sasl_passwd, ran postmap, and let Postfix begin anew (a reload: in the lab, "
    "Postfix is the container's first process); then looked at the files, and asked the map for the relay.",
    expected="The file and the map are there, mode 0600, root's, on tmpfs; the map knows the relay's user; Postfix "
    "began anew after they were made.",
)
def credentials_are_private(scene: Scene, show: Evidence) -> None:
    user, password = scene.relay
    place = scene.settings("sender")["smtp_sasl_password_maps"]
    kind, _, path = place.partition(":")
    made = scene.execute("sender", "relay-credentials", input=f"{user}:{password.reveal()}\n".encode())
    expect(made.code == 0, f"the map could not be made: {made.stderr.strip()}")
    show.text("Postfix began anew", scene.reload("sender"))
    listing = scene.output("sender", "stat", "-c", "%a %U %s %n", path, f"{path}.{kind}")
    system = scene.output("sender", "stat", "-f", "-c", "%T", path).strip()
    rows = [line.split(" ", 3) for line in listing.splitlines()]
    show.table(
        "the map of credentials",
        ("file", "mode", "owner", "bytes", "file system"),
        [(name, f"0{mode}", owner, size, system) for mode, owner, size, name in rows],
    )
    relayhost = scene.settings("sender")["relayhost"]
    answer = scene.output("sender", "postmap", "-q", relayhost, place).strip()
    show.text(f"postmap -q {relayhost} {place}", answer)
    expect(all((mode, owner) == ("600", "root") for mode, owner, *_ in rows), f"not root's alone: {listing}")
    expect(system == "tmpfs", f"they are not on tmpfs, but on {system}")
    expect(answer == f"{user}:{password.reveal()}", f"the map does not have the relay's user, but “{answer}”")


@steps(
    "mailname",
    "An Internet Site with the system mail name",
    row="Step 2: the student configures Postfix as an “Internet Site” with the system mail name example.com.",
    done="Asked postconf on the student's machine for its names; looked in its log from whom the first mail is, which "
    "was sent without naming a sender.",
    expected="What comes after the @ of the machine's users (myorigin) is the lab's mail name, and the first mail is "
    "from the student there.",
    needs=("credentials",),
)
def mailname_is_set(scene: Scene, show: Evidence) -> None:
    settings = scene.settings("sender")
    names = ("myorigin", "myhostname", "mydestination", "inet_interfaces", "relayhost")
    show.table("the names of the machine", ("setting", "value"), [(name, settings[name]) for name in names])
    wanted = scene.lab.definition().mailname
    expect(settings["myorigin"] == wanted, f"the system mail name is {settings['myorigin']}, not {wanted}")
    lines = scene.lines("sender", scene.first_mail, " from=<")
    show.text("what Postfix on the student's machine logged", "\n".join(lines))
    expect(any(f" from=<{scene.student}>" in line for line in lines), f"the mail is not from {scene.student}")
