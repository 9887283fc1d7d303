"""What containers take of the machine, by the engine's own accounts (cgroups(7))."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import docker


@dataclass(frozen=True, slots=True)
class Use:
    """Of one container."""

    memory: float  # MiB, without the page cache that could be given back, as `docker stats` has it
    cpu: float  # seconds, since its start
    when: float  # of the clock of time.monotonic


def use(lab: str) -> dict[str, Use]:
    """Of each container of a lab, by its service, at this moment."""
    client = docker.APIClient(version="auto")
    found = client.containers(filters={"label": f"mailstack.lab={lab}"})
    with ThreadPoolExecutor(8) as pool:
        stats = list(pool.map(lambda each: client.stats(each["Id"], stream=False, one_shot=True), found))
    return {each["Labels"]["com.docker.compose.service"]: _use(stat) for each, stat in zip(found, stats, strict=True)}


def _use(stats: dict[str, Any]) -> Use:
    memory = stats["memory_stats"]
    # cgroup v1 and v2 call it differently.
    given_back = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    cpu = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return Use((memory["usage"] - given_back) / 2**20, cpu, time.monotonic())


def memory(labs: Sequence[str]) -> float:
    """Of all containers of some labs together, in MiB."""
    return sum(each.memory for lab in labs for each in use(lab).values())
