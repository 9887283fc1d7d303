"""`python -m tests.kills --seed N --trials M`: run the kill matrix; exit code 1 when a trial is bad."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.docker.conftest import built_images, own
from tests.docker.nested.installed import installed
from tests.kills.engine import EngineTrial, engine_trials
from tests.kills.trials import Trial, trials


def main() -> int:
    """Run the trials; print each one, and their number."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description="Kill commands at random moments.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same seed makes the same trials")
    parser.add_argument("--trials", type=int, default=30, help="trials that end a command by a signal")
    parser.add_argument("--engine", type=int, default=0, help="further trials that kill a nested engine")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    done: list[Trial | EngineTrial] = []
    for trial in _every(given.trials, given.engine, given.seed):
        done.append(trial)
        print(trial, flush=True)
    bad = Counter(trial.command for trial in done if trial.wrong)
    print(f"{len(done)} trials, {bad.total()} bad{': ' if bad else ''}{dict(bad) if bad else ''}")
    return 1 if bad else 0


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wheels-") as directory:
        yield Path(directory)


def _every(count: int, engine: int, seed: int) -> Iterator[Trial | EngineTrial]:
    yield from trials(count, seed)
    if engine:
        with (
            own() as labs,
            tempfile.TemporaryDirectory(prefix="wheels-") as dist,
            installed(built_images(labs), Path(dist)) as machine,
        ):
            yield from engine_trials(machine, engine, seed)


if __name__ == "__main__":
    sys.exit(main())
