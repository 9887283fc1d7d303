"""A secret's value is found nowhere outside its file and the servers' memory; and what is rotated holds at once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import smtplib
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from mailstack import credentials, files, mail, post
from mailstack.accounts import Accounts
from mailstack.model import Deadline
from mailstack.running import RunningLab
from mailstack.secret import new_password, write_private
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SECONDS = 20.0


def _quiet(_: str) -> None:
    pass


# ── the search ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Search:
    """Looks for secrets, in the forms in which programs pass them on; says where, and never what."""

    needles: dict[bytes, str] = field(default_factory=dict)  # form -> name

    def add(self, name: str, value: str, users: Iterable[str] = ()) -> None:
        """A secret; with `users` also as SASL PLAIN has it (RFC 4616), which no encoding of the value alone covers."""
        for text in (value, *(f"\0{user}\0{value}" for user in users)):
            self.needles[text.encode()] = name
            self.needles[base64.b64encode(text.encode())] = name

    def of(self, lab: RunningLab) -> None:
        """All that are in a lab's directory now."""
        self.in_directory(lab.directory.files)

    def in_directory(self, directory: Path) -> None:
        """All that are in what a lab's containers are handed now."""
        for address, password in files.passwords(directory).items():
            self.add(address, password.reveal(), [address])
        relay = files.read_relay(directory)
        assert relay
        self.add("relay", relay[1].reveal(), [relay[0]])
        for service in files.SERVER_NAMES:
            pem = (directory / f"{service}.pem").read_text()
            key = re.search(r"BEGIN PRIVATE KEY-----\n(.*?)\n-----END", pem, re.S)
            assert key
            for line in key[1].splitlines()[1:]:  # the first line of every P-256 key is much the same
                self.needles[line.encode()] = f"the key of {service}"

    def in_places(self, places: Mapping[str, bytes]) -> list[str]:
        """`NAME in PLACE` for each that is there."""
        return sorted(
            {
                f"{name} in {place}"
                for place, data in places.items()
                for needle, name in self.needles.items()
                if needle in data
            }
        )

    def in_stream(self, chunks: Iterable[bytes]) -> bool:
        """Whether any is in a stream, however long."""
        with self.patterns() as patterns:
            grep = subprocess.Popen(
                ["grep", "--quiet", "--text", "--fixed-strings", f"--file=/dev/fd/{patterns}"],
                stdin=subprocess.PIPE,
                pass_fds=[patterns],
            )
            assert grep.stdin
            with contextlib.suppress(BrokenPipeError):  # it found one, and reads no further
                for chunk in chunks:
                    grep.stdin.write(chunk)
                grep.stdin.close()
            code = grep.wait()
        assert code in (0, 1)
        return code == 0

    @contextlib.contextmanager
    def patterns(self) -> Iterator[int]:
        """The needles that a line can have, one to a line, in a file without a name."""
        fd = os.memfd_create("needles")
        try:
            os.write(fd, b"\n".join(needle for needle in self.needles if b"\0" not in needle) + b"\n")
            os.lseek(fd, 0, os.SEEK_SET)
            yield fd
        finally:
            os.close(fd)


def of_engine(container_ids: Iterable[str], api: docker.APIClient | None = None) -> dict[str, bytes]:
    """What anyone may ask the engine about containers, with their networks, volumes and images."""
    api = api or docker.from_env().api
    found: dict[str, bytes] = {}

    def put(place: str, document: object) -> None:
        found[place] = json.dumps(document).encode()

    for container in container_ids:
        about = api.inspect_container(container)
        name = about["Name"].lstrip("/")
        put(f"inspect {name}", about)
        put(f"top {name}", api.top(container, ps_args="axeww"))
        put(f"diff {name}", api.diff(container))
        found[f"logs {name}"] = api.logs(container)
        put(f"image of {name}", [api.inspect_image(about["Image"]), api.history(about["Image"])])
        for network in about["NetworkSettings"]["Networks"]:
            put(f"network {network}", api.inspect_network(network))
        for mount in about["Mounts"]:
            if mount["Type"] == "volume":
                put(f"volume {mount['Name']}", api.inspect_volume(mount["Name"]))
    return found


def of_processes() -> dict[str, bytes]:
    """Arguments and environment of each process on this machine, those in containers among them (proc(5))."""
    found: dict[str, bytes] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            for kind in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    # The name of the command, for two processes may have had one number.
                    data = (process / kind).read_bytes()
                    found[f"{kind} of {process.name} {hash(data)}"] = data
    return found


class Watch:
    """Looks at all processes again and again, for as long as `with` lasts."""

    def __init__(self, search: Callable[[], Search]) -> None:
        self._search, self._over = search, threading.Event()
        self.places: dict[str, bytes] = {}
        self.rounds = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.places.update(of_processes())
            self.rounds += 1
            self._over.wait(0.01)

    def found(self) -> list[str]:
        """Secrets that any process was seen with."""
        return self._search().in_places(self.places)


# ── the lab with the canaries ──────────────────────────────────────────────────────────────────────────────────────


def command(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """`mailstack WORDS`, whatever its end."""
    return subprocess.run(
        [sys.executable, "-m", "mailstack", *map(str, words)], capture_output=True, timeout=180, check=False
    )


@dataclass
class Canaries:
    """A lab that has done all that a lab does, what was said meanwhile, and what must not be found."""

    lab: RunningLab
    search: Search
    outputs: dict[str, bytes]
    codes: dict[str, int]
    watch: Watch
    since: float


@pytest.fixture(scope="module")
def canaries(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaries]:
    """Up, used, checked, rotated, and misused."""
    directory = tmp_path_factory.mktemp("canaries")
    name = labs.new_name("canary")
    search, outputs, codes = Search(), {}, {}
    since = time.time()

    def run(*words: str | Path) -> None:
        done = command(*words)
        outputs[f"`mailstack {' '.join(map(str, words))}`"] = done.stdout + done.stderr
        codes[" ".join(str(word) for word in words if not str(word).startswith("/"))] = done.returncode

    broken = directory / "broken.yaml"
    broken.write_text("services: {dovecot: {cap_add: !override [KILL]}}\n")
    outside = directory / "outside"
    write_private(outside, f"someone:{(password := new_password().reveal())}\n")
    search.add("the password for a relay outside", password, ["someone"])
    with Watch(lambda: search) as watch:
        run("up", "-n", name, "--json")
        lab = RunningLab(name, engines.here())
        search.of(lab)
        run("send", "-n", name, "--json")
        run("send", "-n", name, "--via", "sender", "--json")
        for via in ("submission", "smtp", "sender"):
            run("dialogue", "-n", name, "--via", via, "--json", "--svg", directory / f"{via}.svg")
            outputs[f"the picture of {via}"] = (directory / f"{via}.svg").read_bytes()
        for words in (
            ("status", "-n", name, "--json"),
            ("status", "-n", name),
            ("inbox", "bob@example.com", "-n", name, "--json"),
            ("read", "bob@example.com", "-n", name, "--json"),
            ("dialogue", "-n", name, "--via", "sender"),
            ("check", "-n", name, "--json"),
            ("config", "-n", name, "--json"),
            ("secrets", "rotate", "-n", name, "--json"),
        ):
            run(*words)
        search.of(lab)
        run("secrets", "rotate", "-n", name)
        search.of(lab)
        # What goes wrong says a lot: none of it is a secret.
        run("send", "-n", name, "--from", "mallory@example.com", "--json")
        run("up", "-n", name, "-f", broken, "--json")
        run("up", "-n", name, "--json")
        run("up", "-n", labs.new_name("outside"), "--relay", "127.0.0.1:9", "--relay-credentials", outside)
        run("secrets", "reveal", "mallory@example.com", "-n", name)
        run("logs", "-n", name, "--json")
    yield Canaries(lab, search, outputs, codes, watch, since)
    labs.down(name)


def containers(lab: RunningLab) -> list[str]:
    """The ids of a lab's containers."""
    return [service.container for service in lab.services()]


def test_the_commands_did_what_they_were_run_for(canaries: Canaries) -> None:
    wrong = {words: code for words, code in canaries.codes.items() if code != 0}
    assert sorted(words.split()[0] for words in wrong) == ["secrets", "send", "up", "up"], wrong
    assert canaries.watch.rounds > 50
    assert len(canaries.search.needles) > 15


def test_no_command_says_a_secret_to_either_output(canaries: Canaries) -> None:
    assert canaries.search.in_places(canaries.outputs) == []


def test_no_process_had_a_secret_among_its_arguments_or_in_its_environment(canaries: Canaries) -> None:
    assert any(b"master\0-i" in data for data in canaries.watch.places.values()), "no container's process was seen"
    assert any(b"MAILSTACK_SECRETS=" in data for data in canaries.watch.places.values()), "Compose was not seen"
    assert canaries.watch.found() == []


def test_nothing_that_the_engine_tells_has_a_secret_in_it(canaries: Canaries) -> None:
    places = of_engine(containers(canaries.lab))
    assert sum(place.startswith("logs ") and len(data) > 100 for place, data in places.items()) == 3
    api = docker.from_env().api
    events = api.events(since=int(canaries.since), until=int(time.time()) + 1, decode=True)
    places["events"] = "\n".join(json.dumps(event) for event in events).encode()
    assert b"exec_create" in places["events"]
    assert canaries.search.in_places(places) == []


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_neither_an_image_nor_a_containers_file_system_nor_a_volume_has_a_secret_in_it(
    canaries: Canaries, service: str
) -> None:
    api = docker.from_env().api
    state = canaries.lab.service(service)
    assert not canaries.search.in_stream(api.get_image(state.image)), "the image"
    assert not canaries.search.in_stream(api.export(state.container)), "the container"
    volume = "/srv/mail" if service == "dovecot" else "/var/spool/postfix"
    assert not canaries.search.in_stream(api.get_archive(state.container, volume)[0]), volume


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_inside_a_container_secrets_are_in_their_files_alone(canaries: Canaries, service: str) -> None:
    needles = b"\n".join(needle for needle in canaries.search.needles if b"\0" not in needle)
    places = "/run /tmp /etc/postfix /var/lib/postfix /home"
    script = f"cat > /tmp/needles; grep -rlaFf /tmp/needles {places}; rm /tmp/needles"
    container = canaries.lab.service(service).container
    result = canaries.lab.engine.execute(container, ["sh", "-c", script], input=needles)
    found = set(result.stdout.split()) - {"/tmp/needles"}
    expected = {
        "postfix": {"/run/secrets/postfix.pem"},
        # Dovecot's own copy of its settings, which its processes map into their memory, has its key in it.
        "dovecot": {
            *("/run/secrets/dovecot.pem", "/run/secrets/accounts", "/run/secrets/relay"),
            "/run/dovecot/dovecot.conf.binary",
        },
        # The map is what Postfix reads: the experiment's sasl_passwd, on tmpfs.
        "sender": {
            *("/run/secrets/sender.pem", "/run/secrets/relay"),
            *("/run/relay/sasl_passwd", "/run/relay/sasl_passwd.lmdb"),
        },
    }
    assert found == expected[service]
    kept = sorted(place for place in found if not place.startswith("/run/secrets/"))
    if kept:
        stated = canaries.lab.engine.execute(container, ["stat", "-c", "%a %U", *kept])
        assert set(stated.stdout.splitlines()) == {"600 root"}
        assert set(canaries.lab.engine.execute(container, ["stat", "-f", "-c", "%T", *kept]).stdout.split()) == {
            "tmpfs"
        }


def test_beside_the_secrets_own_files_the_runtime_directory_has_none(canaries: Canaries) -> None:
    own = {"accounts", "relay", "postfix.pem", "dovecot.pem", "sender.pem"}
    places = {
        str(path): path.read_bytes()
        for path in canaries.lab.directory.path.parent.rglob("*")
        if path.is_file() and not (path.parent == canaries.lab.directory.files and path.name in own)
    }
    assert any(place.endswith("lab.json") for place in places)
    assert canaries.search.in_places(places) == []


def test_the_search_finds_a_secret_wherever_one_is_planted(canaries: Canaries) -> None:
    """The tests above are worth what this one says."""
    value = new_password().reveal()
    search = Search()
    search.add("planted", value, ["someone"])
    client = docker.from_env()
    encoded = base64.b64encode(f"\0someone\0{value}".encode()).decode()
    container = client.containers.create(
        canaries.lab.service("postfix").image,
        ["-c", f"echo said {encoded}; echo {value} > /kept; sleep 60; :"],
        entrypoint=["/bin/sh"],
        environment={"PLANTED": value},
        labels={"mailstack.lab": canaries.lab.name, "mailstack.owner": canaries.lab.state.owner, "planted": value},
        network_mode="none",
    )
    image = None
    try:
        with Watch(lambda: search) as watch:
            container.start()
            deadline = Deadline.after(SECONDS)
            # Root sees other users' environments; others see the arguments alone (proc(5)).
            wanted = {"cmdline", "environ"} if os.geteuid() == 0 else {"cmdline"}
            while not container.logs() or not wanted <= {
                place.partition(" of ")[0] for place, data in list(watch.places.items()) if value.encode() in data
            }:
                assert not deadline.passed(), "no process was seen with the planted secret"
                time.sleep(0.01)  # processes come and go without telling
        assert watch.found()
        image = container.commit()
        name = container.name
        assert {f"planted in {kind} {name}" for kind in ("inspect", "top", "logs")} <= set(
            search.in_places(of_engine([container.id]))
        )
        assert search.in_stream(client.api.export(container.id))
        assert search.in_stream(client.api.get_image(image.id))
        assert not search.in_stream([b"nothing", b"of interest"])
    finally:
        container.remove(force=True)
        if image is not None:
            image.remove(force=True)


def test_what_a_server_has_repeated_is_blotted_out_of_all_that_is_shown(labs: Labs) -> None:
    """The user's own password for a relay outside among it, which is what such a relay may repeat."""
    with labs.one("repeated") as lab:
        outside = new_password().reveal()
        write_private(lab.directory.files / "relay_outside", f"someone:{outside}\n")
        search = Search()
        search.of(lab)
        search.add("the password for a relay outside", outside, ["someone"])
        with Accounts(lab) as accounts:
            search.add("added", accounts.add("added@example.com", fresh=True).reveal())
        sender = lab.service("sender").container
        done = lab.engine.execute(sender, ["sh", "-c", "postconf -e defer_transports=smtp && postfix reload"])
        assert done.code == 0, done.stderr
        with mail.Smtp(mail.to(lab.endpoints["smtp"]), name="localhost") as session:
            session.ehlo()
            for value in (needle.decode() for needle in search.needles if needle.isascii() and b"\0" not in needle):
                if len(value) > 40 or set(value) & set("/+="):
                    continue
                session.command("MAIL FROM:<>")
                assert session.command(f"RCPT TO:<{value}@example.com>")[0] == 550
                session.rset()
                # And it stands in a queue, with the reason why.
                argv = ["sendmail", f"{value}@example.com"]
                done = lab.engine.execute(sender, argv, user="student", input=b"x\n\nx\n")
                assert done.code == 0, done.stderr
        said = {"logs": lab.engine.logs(sender).encode() + lab.engine.logs(lab.service("postfix").container).encode()}
        assert {"the password for a relay outside in logs", "added in logs"} <= set(search.in_places(said))
        outputs = {}
        for words in (("trace",), ("trace", "--json"), ("queue",), ("queue", "--json"), ("logs", "--json")):
            shown = command(*words, "-n", lab.name)
            outputs[" ".join(words)] = shown.stdout + shown.stderr
            assert "••••••" in outputs[" ".join(words)].decode(), words
        assert search.in_places(outputs) == []


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_0600_in_a_0700_directory_on_tmpfs_and_gone_after_down(labs: Labs) -> None:
    with labs.one("files") as lab:
        directory = lab.directory.files
        with Accounts(lab) as accounts:
            accounts.add("added@example.com", fresh=True)
        directories = (directory, directory.parent, directory / "added")
        assert [stat.S_IMODE(path.stat().st_mode) for path in directories] == [0o700] * 3
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*") if path.is_file()}
        assert {"accounts", "relay", "postfix.pem", "added@example.com"} <= set(modes)
        assert {name: oct(mode) for name, mode in modes.items() if mode != 0o600} == {}
        assert file_system_of(directory) in ("tmpfs", "ramfs")
    assert not directory.parent.exists()


def file_system_of(path: Path) -> str:
    """The kind of file system that a path is on (proc(5), /proc/mounts)."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    held = [(place, kind) for place, kind in mounts if path.is_relative_to(place)]
    return max(held, key=lambda mount: len(mount[0]))[1]


# ── reveal and rotate ──────────────────────────────────────────────────────────────────────────────────────────────


def test_reveal_prints_one_secret_to_standard_output_and_to_nothing_else(labs: Labs) -> None:
    with labs.one("reveal") as lab:
        search = Search()
        search.of(lab)
        done = command("secrets", "reveal", "alice@example.com", "-n", lab.name)
        assert done.stdout.decode() == lab.password("alice@example.com").reveal() + "\n"
        assert done.stderr == b""
        done = command("secrets", "reveal", "relay", "-n", lab.name, "--json")
        assert search.in_places({"stdout": done.stdout, "stderr": done.stderr}) == ["relay in stdout"]


def log_in(lab: RunningLab, user: str, password: str) -> int:
    """The reply to AUTH on the submission port."""
    context = mail.tls_context(lab.ca_file)
    with mail.Smtp(mail.to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context) as session:
        try:
            return session.login(user, password)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def test_a_rotated_relay_password_holds_at_once_and_the_old_one_is_refused_with_535(labs: Labs) -> None:
    with labs.one("rotate") as lab:
        before = containers(lab)
        relay = files.read_relay(lab.directory.files)
        assert relay
        user, old = relay[0], relay[1].reveal()
        assert log_in(lab, user, old) == 235
        # Several times within a second: Dovecot tells a changed file by its time, in whole seconds.
        for _ in range(4):
            assert credentials.rotate(lab, _quiet) == user
            now = files.read_relay(lab.directory.files)
            assert now
            new = now[1].reveal()
            assert new != old
            assert (log_in(lab, user, old), log_in(lab, user, new)) == (535, 235)
            old = new
        assert command("secrets", "rotate", "-n", lab.name).returncode == 0
        assert log_in(lab, user, old) == 535
        letter = post.letter(lab.definition(), "student@example.com", ["alice@example.com"], "After", "Rotated.", [])
        sent = post.send(lab, letter, "sender", Deadline.after(SECONDS))
        assert list(sent.arrived) == ["alice@example.com"]
        assert containers(lab) == before
        assert {service.state for service in lab.services()} == {"running"}


def test_mails_leave_the_sender_between_and_after_rotations_without_a_pause(labs: Labs) -> None:
    with labs.one("rotate") as lab:
        for number in range(4):
            letter = post.letter(lab.definition(), "student@example.com", ["bob@example.com"], f"{number}", "Text.", [])
            # Less than the thirty seconds after which a refused mail is tried again: none was.
            assert post.send(lab, letter, "sender", Deadline.after(10)).arrived
            credentials.rotate(lab, _quiet)
