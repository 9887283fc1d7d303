"""`make bench`: what the project's bars are about, measured. Nothing here is a test.

`python -m tests.bench` runs all benchmarks, or those that are named; docs/benchmarks.md has what came of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path

from mailstack.model import Json
from tests.bench.measuring import LEAST, Figures, run

# Each is a module of this package, with a TITLE and a function `measure(runs) -> Figures`.
BENCHMARKS = (
    *("startup", "accounts", "checks", "traces", "latency", "fixture", "suite", "idle", "labs", "throughput"),
    *("remote", "rivals"),
)


def main() -> None:
    """Measure, print tables, and write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--runs", type=int, default=LEAST, help=f"counted runs of each side (at least {LEAST})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    # As for everybody who has installed it: modules are compiled once, and not by each process again. (Some images of
    # Python set this for the sake of their size.)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    machine = _machine()
    runs = max(LEAST, options.runs)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"{runs} runs of each side, in alternation, where nothing else is said", flush=True)
    found: dict[str, Json] = {}
    for name in options.names or BENCHMARKS:
        module = importlib.import_module(f"tests.bench.{name}")
        begun = time.monotonic()
        figures: Figures = module.measure(runs)
        taken = time.monotonic() - begun
        print(f"\n{name}: {module.TITLE} ({taken:.0f} s)\n\n{figures.table()}", flush=True)
        found[name] = {"title": module.TITLE, "seconds": round(taken, 1), **figures.json()}
        if options.json:  # after each: one that fails, or is interrupted, takes nothing of those before it along
            _write(options.json, {"machine": machine, "benchmarks": found})


def _write(path: Path, document: Json) -> None:
    """Write it as a whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(document, indent=2) + "\n")
    new.replace(path)


def _machine() -> Json:
    """What the figures were taken on."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "engine": run(["docker", "version", "--format", "{{.Server.Version}}"]).strip(),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


if __name__ == "__main__":
    main()
