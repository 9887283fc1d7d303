"""`python -m tests.kills --seed N --trials M`: run the kill matrix; exit code 1 when a trial is bad."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter

from tests.kills.trials import trials


def main() -> int:
    """Show each trial and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description="Kill commands at random moments.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same seed makes the same trials")
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    done = []
    for trial in trials(given.trials, given.seed):
        done.append(trial)
        print(trial, flush=True)
    bad = Counter(trial.command for trial in done if trial.wrong)
    print(f"{len(done)} trials, {bad.total()} bad{': ' if bad else ''}{dict(bad) if bad else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
