"""The kind of storage on which the benchmark of throughput has its volumes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.journal import has_journal

DISK = "vdx1"


@pytest.mark.parametrize(
    ("kind", "journals", "found"),
    [
        ("ext4", [f"{DISK}-8"], True),
        ("ext4", [], False),
        ("ext4", ["vdx10-8", "vdy-8"], False),
        ("xfs", [], True),
        ("overlay", [], True),
    ],
    ids=["a journal", "none", "others have one", "xfs", "a container's"],
)
def test_only_an_ext4_can_be_without_a_journal(kind: str, journals: list[str], found: bool, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    for name in journals:
        (proc / "fs/jbd2" / name).mkdir(parents=True)
    device = tmp_path.stat().st_dev
    (proc / "self").mkdir(parents=True)
    lines = [
        f"20 1 {os.major(device)}:{os.minor(device) + 1} / /elsewhere rw - ext4 /dev/vdz rw",
        f"21 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {kind} /dev/{DISK} rw,discard",
    ]
    (proc / "self/mountinfo").write_text("\n".join(lines) + "\n")
    assert has_journal(tmp_path, proc) is found


def test_a_file_system_that_nothing_is_known_of_counts_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("20 1 0:0 / /elsewhere rw - ext4 /dev/vdz rw\n")
    assert has_journal(tmp_path, tmp_path)
