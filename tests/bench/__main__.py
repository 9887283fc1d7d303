"""`make bench`: how long a lab takes to come up, next to what the engine takes by itself; and to trace a message.

Both sides run in one go, in alternation, so that a machine whose speed drifts does so for both. Medians of whole
processes; nothing here is a test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mailstack import compose, definition, images
from mailstack.runner import Local
from tests.bench.traces import long_log

MAILSTACK = Path(sys.executable).with_name("mailstack")
NAME = "bench"
LINES = 100_000  # of the log that a message is traced in


def main() -> None:
    """Measure, print a table, and write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each side (at least 5)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = measure(max(5, options.runs))
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(runs: int) -> dict[str, object]:
    """Both sides in alternation, after one run of each that is not counted: it builds the images."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as secrets:
        run([MAILSTACK, "secrets", "init", secrets])
        log = Path(secrets) / "long.log"
        queue_id = long_log(log, LINES)
        sides: dict[str, Callable[[], float]] = {
            "up": up,
            "bare": lambda: bare(Path(secrets)),
            "help": show_help,
            "trace": lambda: timed(MAILSTACK, "trace", "--logs", log, queue_id, "--json"),
            "grep": lambda: timed("grep", "-F", queue_id, log),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(runs + 1):
            for name, side in sides.items():
                taken = side()
                print(f"\r\x1b[K{number} of {runs}: {name} {taken:.3f} s", end="", file=sys.stderr, flush=True)
                if number:
                    seconds[name].append(taken)
        print("\r\x1b[K", end="", file=sys.stderr)
    seconds["check"] = check(5)
    ratios = [a / b for a, b in zip(seconds["up"], seconds["bare"], strict=True)]
    return {
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors",
        "engine": run(["docker", "version", "--format", "{{.Server.Version}}"]).strip(),
        "runs": runs,
        "seconds": seconds,
        "median": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": statistics.median(ratios),
    }


def print_table(figures: dict[str, object]) -> None:
    """The figures for people."""
    seconds = figures["seconds"]
    assert isinstance(seconds, dict)
    titles = {
        "up": "mailstack up --json, the verifying mail included",
        "bare": "docker compose up -d, of the same definitions",
        "help": "mailstack --help",
        "trace": f"mailstack trace --logs, {LINES:,} lines",
        "grep": "grep -F, of a queue id in them",
        "check": "mailstack check --json, all checks",
    }
    print(f"{figures['machine']}; engine {figures['engine']}; {figures['runs']} runs, in alternation\n")
    print(f"{'seconds':<52}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in seconds.items():
        print(f"{titles[name]:<52}{min(values):>8.3f}{statistics.median(values):>8.3f}{max(values):>8.3f}")
    print(f"\nup ÷ bare, pair by pair: {figures['ratio']:.2f} (the bar: 1.5)")


def up() -> float:
    """A lab from nothing to a verified mail, as a whole process; then down."""
    begun = time.perf_counter()
    answer = run([MAILSTACK, "up", "-n", NAME, "--json", "--progress", "quiet"])
    taken = time.perf_counter() - begun
    assert json.loads(answer)["verified"]["message_id"]
    run([MAILSTACK, "down", "-n", NAME])
    return taken


def bare(secrets: Path) -> float:
    """The same containers by Compose alone, proven by nothing; then down."""
    environment = {
        "MAILSTACK_SECRETS": str(secrets),
        "MAILSTACK_TAG": images.content_tag(definition.stack()),
        "MAILSTACK_LAB": NAME,
    }
    project = compose.Compose(
        compose.find(Local()), "mailstack-bench-bare", [definition.compose_file("lab.yaml")], environment
    )
    command = project.command("up", "-d")
    begun = time.perf_counter()
    run(list(command.argv), dict(command.environment))
    taken = time.perf_counter() - begun
    down = project.command("down", "--volumes", "--timeout", "2")
    run(list(down.argv), dict(down.environment))
    return taken


def check(runs: int) -> list[float]:
    """All checks on a lab that is up."""
    run([MAILSTACK, "up", "-n", NAME])
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        assert json.loads(run([MAILSTACK, "check", "-n", NAME, "--json"]))["failed"] == 0
        taken.append(time.perf_counter() - begun)
    run([MAILSTACK, "down", "-n", NAME])
    return taken


def show_help() -> float:
    """The time until the help is there."""
    return timed(MAILSTACK, "--help")


def timed(*argv: str | Path) -> float:
    """How long a command takes, as a whole process."""
    begun = time.perf_counter()
    run(list(argv))
    return time.perf_counter() - begun


def run(argv: list[str | Path], environment: dict[str, str] | None = None) -> str:
    """Run a command to its end; its standard output. What it says otherwise is shown when it fails."""
    result = subprocess.run(
        argv, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        sys.exit(f"{argv[0]} ended with code {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


if __name__ == "__main__":
    main()
