"""`python -m tests.soak --seeds 1 2 3 --mails 15000`: exit code 1 when a mail was lost."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from mailstack.errors import MailstackError
from tests.docker.conftest import own
from tests.soak.disturbances import soak


def main() -> int:
    """Run each seed on a lab of its own, and show the sums."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Disturb a lab under load; count mails.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--mails", type=int, default=15_000, help="mails to be accepted, over all seeds")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    with own() as labs:
        for seed in given.seeds:
            with labs.one("soak") as lab:
                outcomes, made = soak(lab, seed, -(-given.mails // len(given.seeds)))
            count = Counter(
                accepted=sum(len(each.accepted) for each in outcomes),
                lost=sum(len(each.lost) for each in outcomes),
                doubled=sum(len(each.doubled) for each in outcomes),
                waiting=sum(sum(each.waiting.values()) for each in outcomes),
                disturbances=len(made),
            )
            print(f"seed {seed}: {dict(count)}; {dict(Counter(made))}", flush=True)
            for outcome in outcomes:
                for message_id in outcome.lost:
                    print(f"  lost {message_id}: {outcome.journeys.get(message_id, '')}", flush=True)
            total += count
    print(f"all: {dict(total)}")
    return 1 if total["lost"] or total["waiting"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MailstackError as error:
        sys.exit(error.whole())
