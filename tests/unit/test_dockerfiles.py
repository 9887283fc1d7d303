"""The Dockerfiles, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.base import BASE

STACK = Path(__file__).parents[2] / "stack"


def instructions(service: str) -> list[str]:
    """The instructions of an image's Dockerfile, each with its continued lines, without comments."""
    lines = (STACK / service / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [part for part in text.replace("\\\n", "\0").split("\n") if part.strip()]


def test_the_first_run_instruction_is_the_same_in_all_three_so_that_they_share_its_layer() -> None:
    shared = {service: instructions(service)[:2] for service in ("postfix", "dovecot", "sender")}
    assert shared["postfix"][1].startswith("RUN ")
    assert shared["dovecot"] == shared["postfix"]
    assert shared["sender"] == shared["postfix"]


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_each_image_stands_on_the_base_that_the_controller_provides(service: str) -> None:
    assert [line for line in instructions(service) if line.startswith("FROM")] == [f"FROM {BASE}"]


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_each_layer_with_packages_is_cleaned_where_it_is_made(service: str) -> None:
    installing = [line for line in instructions(service) if "apt-get install" in line]
    assert installing
    for line in installing:
        assert "rm -rf /var/lib/apt/lists/* /var/cache/apt/*" in line
