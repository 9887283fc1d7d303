"""The disk space of the images, and the memory of an idle lab."""

from __future__ import annotations

import contextlib

import docker
import pytest

from mailstack.definition import bundled
from mailstack.images import build
from mailstack.model import SERVICES
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

IMAGES_MEGABYTES = 270
LEAN_MEGABYTES = 230
IDLE_MEBIBYTES = 60


def test_the_three_images_together_take_at_most_270_megabytes(images: list[str]) -> None:
    taken = build.unique_bytes(engines.here(), images)
    assert taken <= IMAGES_MEGABYTES * 1000**2, f"{taken / 1000**2:.1f} MB"
    # The largest of them alone: less than that, and the layers' sizes were not found.
    assert taken > max(map(image_bytes, images))


def test_without_the_tools_of_the_sender_the_images_take_at_most_230_megabytes(images: list[str]) -> None:
    lean = f"mailstack/sender-lean:{images[0].partition(':')[2]}"
    with contextlib.ExitStack() as made:
        docker.from_env().images.build(path=str(bundled.stack()), target="sender", tag=lean)
        made.callback(docker.from_env().images.remove, lean)
        without = [lean if "/sender:" in image else image for image in images]
        taken = build.unique_bytes(engines.here(), without)
        assert taken <= LEAN_MEGABYTES * 1000**2, f"{taken / 1000**2:.1f} MB"
        assert taken < build.unique_bytes(engines.here(), images)


def image_bytes(reference: str) -> int:
    """Return the size of an image as `docker images` shows it."""
    return int(docker.from_env().images.get(reference).attrs["Size"])


def test_a_lab_that_does_nothing_takes_at_most_60_mebibytes_of_memory(labs: Labs) -> None:
    client = docker.from_env()
    with labs.one("idle") as lab:
        used = {}
        for service in lab.services():
            memory = client.api.stats(service.container, stream=False, one_shot=True)["memory_stats"]
            # As `docker stats` counts: without the page cache that the kernel can take back (cgroup v1, then v2).
            reclaimable = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
            used[service.name] = (memory["usage"] - reclaimable) / 1024**2
    assert set(used) == set(SERVICES)
    assert all(megabytes > 1 for megabytes in used.values()), used
    assert sum(used.values()) <= IDLE_MEBIBYTES, used
