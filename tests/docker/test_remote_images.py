"""A machine over SSH without images and without access to a base image: the images are sent there, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mailstack import state
from mailstack.definition import bundled
from mailstack.images import base, build
from mailstack.model import SERVICES
from tests import engines
from tests.docker import nested
from tests.docker.remote import answer, left, mailstack

pytestmark = [pytest.mark.docker, pytest.mark.remote, pytest.mark.usefixtures("for_remote")]

MIB = 1 << 20


def references() -> list[str]:
    """Return the names of the lab's images."""
    tag = build.content_tag(bundled.stack())
    return [f"mailstack/{service}:{tag}" for service in SERVICES]


@pytest.fixture
def empty(for_remote: None) -> Iterator[nested.Machine]:
    """Yield a machine whose engine has no image."""
    with nested.machine(state.owner(), image=nested.REMOTE) as made:
        yield made


def came(machine: nested.Machine) -> int:
    """Return the bytes that the machine's network card has received."""
    return int(machine.run("cat", "/sys/class/net/eth0/statistics/rx_bytes"))


def held(machine: nested.Machine) -> list[str]:
    """Return the names of the images on the machine's engine."""
    return sorted(tag for image in machine.engine.images.list() for tag in image.tags)


def test_images_are_sent_with_progress_and_not_sent_again(empty: nested.Machine) -> None:
    size = build.unique_bytes(engines.here(), references())
    before = came(empty)
    up = mailstack(empty, "up", "-n", "sent")
    told = re.findall(rf"sending the images to tester: (\d+) of about {size // MIB} MiB …\n", up.stderr)
    assert [int(each) for each in told] == sorted({int(each) for each in told}) and 0 < len(told) <= 50
    assert size / 5 < came(empty) - before < size / 1.5, "they are compressed on their way, and each layer goes once"
    assert held(empty) == sorted(references())
    mailstack(empty, "down", "-n", "sent")

    before = came(empty)
    assert answer(empty, "up", "-n", "sent")["verified"]["milliseconds"] > 0
    assert came(empty) - before < MIB
    mailstack(empty, "down", "-n", "sent")
    assert left(empty) == []


def test_an_engine_that_cannot_build_is_sent_what_it_lacks(empty: nested.Machine) -> None:
    empty.load([references()[0]])
    # A base on which the first RUN fails at once; apt would try for half a minute to reach packages that it cannot.
    nothing = bytes(10240)  # an archive that ends where it begins, tar(5)
    empty.engine.api.import_image_from_data(nothing, *base.BASE.split(":"))
    up = mailstack(empty, "up", "-n", "sent", "--json")
    assert "they cannot be built on tester" in up.stderr
    size = build.unique_bytes(engines.here(), references()[1:])
    assert f"sending the images to tester: about {size // MIB} MiB" in up.stderr
    assert held(empty) == sorted([*references(), base.BASE])
    mailstack(empty, "down", "-n", "sent")


def test_who_interrupts_while_images_are_sent_leaves_nothing(empty: nested.Machine) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mailstack", "up", "-n", "sent", "--host", "tester"],
        env={**os.environ, "HOME": str(empty.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while " of about " not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 130, said
    assert "mailstack: interrupted" in said
    assert held(empty) == []
    assert left(empty) == []


def test_a_disk_that_is_full_there_is_told_with_the_host_s_name(for_remote: None) -> None:
    with nested.machine(state.owner(), image=nested.REMOTE, tmpfs={"/var/lib/docker": "size=60m"}) as small:
        said = mailstack(small, "up", "-n", "sent", code=3).stderr.split("mailstack: ")[1]
        assert said.startswith("the Docker engine on tester cannot load the images: ")
        assert "no space left on device" in said
        assert "mailstack doctor --host tester" in said
        assert held(small) == []
        assert left(small) == []
