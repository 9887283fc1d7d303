"""A secret's value is only in its file and in the servers' memory; a rotation takes effect at once."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from mailstack.actions.accounts import Accounts
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import smtp
from mailstack.secret import new_password, write_private
from tests import engines
from tests.docker.conftest import Labs
from tests.docker.search import Search, Watch, command, containers, of_engine

pytestmark = pytest.mark.docker

SECONDS = 20.0


def _quiet(_: str) -> None:
    pass


@dataclass
class Canaries:
    """A lab with known secrets after all operations of a lab, the output of these, and the search for the secrets."""

    lab: RunningLab
    search: Search
    outputs: dict[str, bytes]
    codes: dict[str, int]
    watch: Watch
    since: float


@pytest.fixture(scope="module")
def canaries(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaries]:
    """Bring a lab up; use, check, rotate and misuse it."""
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
            # The password of the student's own mailbox, for mail(1) and mutt(1): a file of the student, on tmpfs.
            *("/run/secrets/student", "/home/student/.mu-tickets"),
        },
    }
    assert found == expected[service]
    kept = sorted(place for place in found if not place.startswith("/run/secrets/"))
    if kept:
        stated = canaries.lab.engine.execute(container, ["stat", "-c", "%a %U %n", *kept])
        owners = {place: "student" if place.startswith("/home/student/") else "root" for place in kept}
        assert stated.stdout.splitlines() == [f"600 {owners[place]} {place}" for place in kept]
        assert set(canaries.lab.engine.execute(container, ["stat", "-f", "-c", "%T", *kept]).stdout.split()) == {
            "tmpfs"
        }


def test_beside_the_secrets_own_files_the_runtime_directory_has_none(canaries: Canaries) -> None:
    own = {"accounts", "relay", "student", "postfix.pem", "dovecot.pem", "sender.pem"}
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
        assert container.id and image.id
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
        with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
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
