"""The order of the files of tests: the longest ones first, so that no worker is left alone with one at the end.

pytest-xdist would begin with the files of the most tests, and end with the longest: `--no-loadscope-reorder` leaves
the order to this plugin.
"""

from __future__ import annotations

import pytest

# By the seconds of a whole run (`--durations=0`), down to half a minute. All others follow in their own order.
LONGEST = (
    "docker/test_remote.py",
    "docker/test_guard.py",
    "docker/test_remote_faults.py",
    "docker/test_side_by_side.py",
    "docker/test_readme.py",
    "docker/test_plugin.py",
    "docker/test_wheel.py",
    "docker/test_terminal.py",
    "docker/test_directories.py",
    "docker/test_plugin_runs.py",
    "docker/test_testssl.py",
    "docker/test_interrupted.py",
    "docker/test_explained_repairs.py",
    "docker/test_experiment.py",
    "docker/test_durability.py",
    "docker/bad_input/test_overlays.py",
    "docker/test_remote_images.py",
    "docker/test_remote_logins.py",
    "docker/test_secrets.py",
    "docker/test_checks_red.py",
    "docker/test_lab.py",
    "docker/test_rotation.py",
    "docker/test_remote_shells.py",
    "docker/test_engine26.py",
    "docker/test_capabilities.py",
    "browser/test_report.py",
    "docker/test_plugin_failures.py",
    "docker/test_image_archives.py",
    "docker/test_queue.py",
    "docker/test_attachments.py",
    "docker/test_trace.py",
    "docker/test_remote_provision.py",
    "docker/test_addresses.py",
    "docker/test_services.py",
    "docker/test_dialogue.py",
    "process/test_stdio.py",
    "docker/test_up_again.py",
    "docker/test_relay_outside.py",
)


class LongestFirst:
    """Puts the longest files first; the tests of a file keep their order."""

    def __init__(self, tests: str) -> None:
        self._ranks = {f"{tests}/{name}": rank for rank, name in enumerate(LONGEST)}

    def rank(self, path: str) -> int:
        """Return the place of a file: that of all short ones is the last."""
        return self._ranks.get(path, len(self._ranks))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort the tests."""
        items.sort(key=lambda item: self.rank(str(item.path)))
