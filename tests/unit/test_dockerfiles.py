"""The Dockerfile of the images, as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mailstack.definition.bundled import compose_file
from mailstack.images.base import BASE
from mailstack.model import SERVICES

STACK = Path(__file__).parents[2] / "stack"


def instructions() -> list[str]:
    """Return the instructions of the Dockerfile, with continued lines joined and without comments."""
    lines = (STACK / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [part for part in text.replace("\\\n", "\0").split("\n") if part.strip()]


def stages() -> dict[str, tuple[str, list[str]]]:
    """Return each stage by its name: its base, and its instructions."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in instructions():
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            found[name] = (base, [])
        elif name:
            found[name][1].append(line)
    return found


def arguments() -> dict[str, set[str]]:
    """Return the lists of packages by the names of their arguments."""
    given = re.findall(r'^ARG (\w+)="(.*)"$', "\n".join(instructions()), re.MULTILINE)
    return {name: set(packages.split()) for name, packages in given}


def test_there_is_one_dockerfile_and_each_service_is_a_target_of_it() -> None:
    assert list(STACK.rglob("Dockerfile")) == [STACK / "Dockerfile"]
    services = yaml.safe_load(compose_file("lab.yaml").read_text())["services"]
    assert {service: services[service]["build"] for service in SERVICES} == {
        service: {"context": "../stack", "target": "sender-tools" if service == "sender" else service}
        for service in SERVICES
    }
    assert set(SERVICES) < set(stages())


def test_one_base_and_the_layers_above_it_are_shared() -> None:
    assert {name: base for name, (base, _) in stages().items()} == {
        "common": BASE,
        "dovecot": "common",
        "mta": "common",
        "postfix": "mta",
        "sender": "mta",
        "sender-tools": "sender",
    }


def test_the_index_is_fetched_once_and_has_the_packages_of_every_stage() -> None:
    (line,) = [line for line in instructions() if "--print-uris" in line]
    assert line in stages()["common"][1]
    asked = set(re.findall(r"\$(\w+)", re.search(r"--print-uris ([^|]*)", line)[1]))  # type: ignore[index]
    assert asked == set(arguments())
    installed = {name for each in instructions() for name in re.findall(r"apt-get install \$(\w+)", each)}
    assert installed == asked
    # Again only where an index of weeks ago names packages that are no longer there.
    others = [each for each in instructions() if "apt-get update" in each and each != line]
    assert all(
        re.search(r"apt-get install \$(\w+) \|\| { apt-get update && apt-get install \$\1; }", each) for each in others
    )


@pytest.mark.parametrize("stage", ["common", "dovecot", "mta", "sender", "sender-tools"])
def test_each_layer_with_packages_is_cleaned_where_it_is_made(stage: str) -> None:
    (line,) = [line for line in stages()[stage][1] if "apt-get install" in line]
    for leftover in ("/var/cache/apt/*", "/var/cache/debconf/*-old", "/var/log/*"):
        assert leftover in line[line.rindex("apt-get install") :]


@pytest.mark.parametrize("stage", [*SERVICES, "sender-tools"])
def test_no_image_has_a_package_index(stage: str) -> None:
    assert any("/var/lib/apt/lists/*" in line for line in stages()[stage][1] if " rm -rf " in line)


def test_ucf_is_itself_again_in_the_image() -> None:
    (line,) = [line for line in instructions() if "/usr/sbin/ucf" in line]
    for name in ("/usr/sbin/ucf", "/usr/sbin/ucfr"):
        assert f"ln -s /bin/true {name} " in line
        assert re.search(rf"rm -rf [^&]*{name}(\s|$)", line)
