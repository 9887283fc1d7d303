"""The loss of a log's beginning is detected by its size, its limits and its first lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mailstack.definition.bundled import compose_file
from mailstack.trace.rotation import Limits, Rotated, find_rotation, limits, stored_size

LINE = "2026-11-23T21:29:17.692174350Z Nov 23 21:29:17 postfix postfix/qmgr[9]: AA52A1680C0: removed"
STARTED = "2026-11-23T21:29:17.692174350Z Nov 23 21:29:17 postfix postfix/master[1]: daemon started -- version 3.10.13"
DOVECOT = (
    "2026-11-23T21:29:17.692174350Z 2026-11-23 21:29:17.6 master: Info: Dovecot v2.4.1-4 (7d8c) starting up for imap"
)
ALLOWED = Limits(10_000, 3)


@pytest.mark.parametrize(
    ("driver", "options", "found"),
    [
        ("json-file", {"max-size": "10m", "max-file": "5"}, Limits(10_000_000, 5)),
        ("json-file", {"max-size": "20k"}, Limits(20_000, 1)),
        ("json-file", {"max-size": "1.5MB", "max-file": "2"}, Limits(1_500_000, 2)),
        ("json-file", {"max-file": "5"}, None),
        ("json-file", {}, None),
        ("local", {}, Limits(20_000_000, 5)),
        ("journald", {"max-size": "10m"}, None),
        ("json-file", {"max-size": "much"}, None),
    ],
)
def test_limits_are_read_from_the_driver_s_options(driver: str, options: dict[str, str], found: Limits | None) -> None:
    assert limits(driver, options) == found


def test_the_size_is_what_the_engine_writes() -> None:
    texts = ["plain", 'from=<a@example.com>, "quoted" & back\\slash', "Grüße", ""]
    time = "2026-11-23T21:29:17.692174351Z"
    engine = "".join(
        json.dumps({"log": f"{text}\n", "stream": "stdout", "time": time}, ensure_ascii=False, separators=(",", ":"))
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        + "\n"
        for text in texts
    )
    assert stored_size(f"{time} {text}\n".encode() for text in texts) == len(engine.encode())


def test_a_full_log_that_begins_with_any_line_has_lost_what_was_before_it() -> None:
    found = find_rotation("postfix", ALLOWED, 20_000, [LINE])
    assert found is not None
    assert found.json() == {"service": "postfix", "begins": "2026-11-23T21:29:17.692+00:00"}
    assert found.sentence().startswith("the log of postfix begins at 2026-11-2")


@pytest.mark.parametrize("line", [STARTED, DOVECOT])
def test_a_log_that_begins_with_a_server_s_start_has_lost_nothing(line: str) -> None:
    assert find_rotation("any", ALLOWED, 20_000, ["2026-11-23T21:29:17.6Z postconf: warning: a word", line]) is None


@pytest.mark.parametrize(("allowed", "size"), [(ALLOWED, 19_000), (None, 10**9)])
def test_a_log_that_has_room_or_no_limit_has_lost_nothing(allowed: Limits | None, size: int) -> None:
    assert find_rotation("postfix", allowed, size, [LINE]) is None


def test_a_log_without_times_has_lost_its_beginning_at_no_time() -> None:
    assert find_rotation("any", Limits(10, 1), 0, ["?"]) == Rotated("any", None)
    assert Rotated("any", None).json() == {"service": "any", "begins": None}


def test_each_service_of_the_definition_has_bounds_which_the_document_states() -> None:
    services = yaml.safe_load(compose_file("lab.yaml").read_text())["services"]
    allowed = {limits(each["logging"]["driver"], each["logging"]["options"]) for each in services.values()}
    assert allowed == {Limits(10_000_000, 5)}
    text = (Path(__file__).parents[2] / "docs" / "definition.md").read_text()
    assert "five files of 10 MB" in text and "150 MB at most" in text
    unbounded = [place for each in services.values() for place in each["tmpfs"] if "size=" not in place]
    assert unbounded == []  # which would be half of the host's memory each
