"""How long a lab takes to come up and to go, next to what the engine takes for the same containers by itself."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from mailstack.definition import bundled
from mailstack.engine import compose
from mailstack.images import build
from mailstack.runner.local import Local
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run, timed

TITLE = "up and down, against plain Compose"
NAME = "bench"

_PARTS = {
    "the process": "Python, its modules, its end",
    "definition": "reading the definition, choosing ports",
    "files": "certificates, passwords, tables",
    "compose": "docker compose up -d",
    "ready": "the rest of the proof by two mails",
}


def measure(runs: int) -> Figures:
    """Both sides; what is counted is whole processes."""
    downs: dict[str, list[float]] = {"up": [], "bare": []}
    parts: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as secrets:
        run([MAILSTACK, "secrets", "init", secrets])
        seconds = alternate(
            {
                "up": lambda: _up(downs["up"], parts),
                "bare": lambda: _bare(Path(secrets), downs["bare"]),
                "help": lambda: timed(MAILSTACK, "--help"),
            },
            runs,
        )
    down, bare_down = (tuple(downs[side][1:]) for side in ("up", "bare"))
    besides = tuple(ours - theirs for ours, theirs in zip(down, bare_down, strict=True))
    return Figures(
        (
            Row("mailstack up --json, both verifying mails included", seconds["up"]),
            *(Row(f"  of it: {part}", tuple(values[1:])) for part, values in parts.items()),
            Row("docker compose up -d, of the same definitions", seconds["bare"]),
            Row("mailstack down", down),
            Row("  of it: besides what plain Compose takes", besides),
            Row("docker compose down", bare_down),
            Row("mailstack --help", seconds["help"]),
        ),
        (
            Ratio("up ÷ bare up, pair by pair", paired(seconds["up"], seconds["bare"]), bar=1.4),
            Ratio("down ÷ bare down, pair by pair", paired(down, bare_down), bar=1.2),
        ),
    )


def _up(downs: list[float], parts: dict[str, list[float]]) -> float:
    """A lab from nothing to two verified mails; then down, which is counted by itself.

    `parts` is what `up` itself tells of its time, and what the process takes around that: Python, its modules.
    """
    begun = time.perf_counter()
    answer = run([MAILSTACK, "up", "-n", NAME, "--json", "--progress", "quiet"])
    taken = time.perf_counter() - begun
    told = json.loads(answer)
    assert told["verified"]["message_id"]
    total = told["seconds"].pop("total")
    for part, seconds in {"the process": taken - total, **told["seconds"]}.items():
        parts.setdefault(_PARTS[part], []).append(seconds)
    downs.append(timed(MAILSTACK, "down", "-n", NAME))
    return taken


def _bare(secrets: Path, downs: list[float]) -> float:
    """The same containers by Compose alone, proven by nothing; then down."""
    environment = {
        "MAILSTACK_SECRETS": str(secrets),
        "MAILSTACK_TAG": build.content_tag(bundled.stack()),
        "MAILSTACK_LAB": NAME,
    }
    project = compose.Compose(
        compose.find(Local()), "mailstack-bench-bare", [bundled.compose_file("lab.yaml")], environment
    )
    command = project.command("up", "-d")
    begun = time.perf_counter()
    run(command.argv, command.environment)
    taken = time.perf_counter() - begun
    command = project.command("down", "--volumes", "--timeout", "2")
    begun = time.perf_counter()
    run(command.argv, command.environment)
    downs.append(time.perf_counter() - begun)
    return taken
