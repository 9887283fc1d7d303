"""Steps 1 to 4: installation and configuration of the student's machine."""

from __future__ import annotations

from mailstack.checks.judging import Unmet, expect
from mailstack.errors import MailstackError
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps

steps = Steps()

REQUIRED = ("postfix", "sasl2-bin", "mailutils")
OTHER_PACKAGES = {
    "sender": ("postfix-lmdb", "libsasl2-modules", "ca-certificates", "openssl"),
    "postfix": ("postfix", "postfix-lmdb", "openssl"),
    "dovecot": ("dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "openssl"),
}


def packages(scene: Scene, service: str) -> dict[str, str]:
    """Return the relevant installed packages of a machine, with their versions: dpkg-query(1)."""
    names = (*(REQUIRED if service == "sender" else ()), *OTHER_PACKAGES[service])
    output_format = "-f=${db:Status-Status} ${Package} ${Version}\\n"

    def query() -> dict[str, str]:
        lines = scene.execute(service, "dpkg-query", "-W", output_format, *names).stdout.splitlines()
        return {line.split()[1]: line.split()[2] for line in lines if line.startswith("installed ")}

    return scene.once(f"packages of {service}", query)


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
    if isinstance(scene.up_result, MailstackError):
        show.text("what `up` reported", scene.up_result.details)
        raise Unmet(scene.up_result.message)
    if scene.up_result:
        proof = scene.up_result.verified
        show.text(
            f"up after {scene.up_result.seconds['total']:.1f} s, proven by this mail",
            f"{proof.message_id}: in the mailbox after {proof.milliseconds:.0f} ms",
        )
    stopped = [state.name for state in scene.services() if state.state != "running"]
    expect(not stopped, f"not running: {', '.join(stopped)}")


@steps(
    "install",
    "Postfix, the SASL tools and mailutils are installed",
    row="Step 1: the student installs Postfix and the SASL tools, and mailutils.",
    done="Listed the installed packages of each machine of the lab with dpkg-query.",
    expected="postfix, sasl2-bin and mailutils are installed on the student's machine.",
)
def packages_are_installed(scene: Scene, show: Evidence) -> None:
    found = {service: packages(scene, service) for service in OTHER_PACKAGES if service in scene.running}
    rows = [(service, name, version) for service, names in found.items() for name, version in names.items()]
    show.table("installed packages", ("machine", "package", "version"), rows)
    missing = [name for name in REQUIRED if name not in found.get("sender", {})]
    expect(not missing, f"not installed on the sender: {', '.join(missing)}")


@steps(
    "credentials",
    "The user name and the password are in a hashed map that only root may read",
    row="Step 4: the student writes user name and password into sasl_passwd, hashes it with postmap, restarts Postfix.",
    done="Wrote the credentials into sasl_passwd, ran postmap, and reloaded Postfix (enough for a new map, and without "
    "the interruption of a restart); then listed the files, and queried the map for the relay.",
    expected="The file and the map are on tmpfs, owned by root, with mode 0600; the map has the relay's user; Postfix "
    "reloaded after they were made.",
)
def credentials_are_private(scene: Scene, show: Evidence) -> None:
    user, password = scene.relay
    place = scene.settings("sender")["smtp_sasl_password_maps"]
    kind, _, path = place.partition(":")
    result = scene.execute("sender", "relay-credentials", input=f"{user}:{password.reveal()}\n".encode())
    expect(result.code == 0, f"the map could not be made: {result.stderr.strip()}")
    show.text("Postfix reloaded", scene.reload("sender"))
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
    expect(all((mode, owner) == ("600", "root") for mode, owner, *_ in rows), f"not private to root: {listing}")
    expect(system == "tmpfs", f"the files are on {system}, not on tmpfs")
    expect(answer == f"{user}:{password.reveal()}", f"the map has “{answer}”, not the relay's user")


@steps(
    "mailname",
    "An Internet Site with the system mail name",
    row="Step 2: the student configures Postfix as an “Internet Site” with the system mail name example.com.",
    done="Read the names of the student's machine with postconf, and from its log the sender of the first mail, which "
    "was sent without naming one.",
    expected="What comes after the @ of the machine's users (myorigin) is the lab's mail name, and the first mail is "
    "from the student there.",
    needs=("credentials",),
)
def mailname_is_set(scene: Scene, show: Evidence) -> None:
    settings = scene.settings("sender")
    names = ("myorigin", "myhostname", "mydestination", "inet_interfaces", "relayhost")
    show.table("the names of the machine", ("setting", "value"), [(name, settings[name]) for name in names])
    mailname = scene.lab.definition().mailname
    expect(settings["myorigin"] == mailname, f"the system mail name is {settings['myorigin']}, not {mailname}")
    lines = scene.lines("sender", scene.first_mail, " from=<")
    show.text("the log of Postfix on the student's machine", "\n".join(lines))
    expect(any(f" from=<{scene.student}>" in line for line in lines), f"the mail is not from {scene.student}")
