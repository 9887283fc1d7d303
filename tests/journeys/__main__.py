"""Make the corpus: `python -m tests.journeys [NAME…]`."""

from __future__ import annotations

import base64
import contextlib
import gzip
import heapq
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mailstack import failures
from mailstack.config import files
from mailstack.model import Deadline
from tests.docker.conftest import own
from tests.docker.faults import Mail, Stage
from tests.docker.faults.worlds import WORLDS
from tests.journeys import evidence
from tests.journeys.scenes import SCENES, Scene

HERE = Path(__file__).parents[1] / "data" / "journeys"
SETTLED_SECONDS = 20.0
_PACKED_FROM = 50_000  # bytes


def main(names: Sequence[str]) -> None:
    """Play the scenes, one after the other, each on its lab."""
    HERE.mkdir(exist_ok=True)
    chosen = [scene for scene in SCENES if not names or scene.name in names]
    with own() as labs, tempfile.TemporaryDirectory() as directory:
        stages: dict[str, Stage] = {}
        for scene in chosen:
            if scene.lab not in stages:
                place = Path(directory) / scene.lab
                place.mkdir()
                overlay = WORLDS[scene.lab](place)
                stages[scene.lab] = Stage(labs.up(labs.new_name(f"journeys-{scene.lab}"), [overlay]))
            capture(scene, stages[scene.lab])


def capture(scene: Scene, stage: Stage, where: Path = HERE) -> None:
    """Play one, wait until everything is where it is expected to be, and write down both sides."""
    print(f"{scene.name}: {scene.about}", file=sys.stderr)
    _clear(stage)
    begun = time.time()
    text = ""
    with stage.scene(scene.undo):
        mails = scene.act(stage)
        _settle(scene, stage, mails)
        text = _logs(stage, begun)
    found = evidence.look(stage)
    document = {
        "about": scene.about,
        "fault": scene.fault,
        "messages": [evidence.document(stage, sent, found) for sent in mails],
    }
    _blameless(stage, text)
    if scene.fault:
        told = {fault.id for line in text.splitlines() if (fault := failures.recognise(line))}
        assert scene.fault in told, (scene.name, told)
    for old in where.glob(f"{scene.name}.log*"):
        old.unlink()
    data = text.encode()
    if len(data) < _PACKED_FROM:
        (where / f"{scene.name}.log").write_bytes(data)
    else:
        (where / f"{scene.name}.log.gz").write_bytes(gzip.compress(data, mtime=0))
    (where / f"{scene.name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _settle(scene: Scene, stage: Stage, mails: Sequence[Mail]) -> None:
    """Wait until the mails are where they are expected to be, and the log has nothing more to tell of it."""
    deadline = Deadline.after(SETTLED_SECONDS)
    while True:
        found = evidence.look(stage, scene.imap)
        if not evidence.unsettled(stage, mails, found) and _told(stage, scene.silent):
            return
        assert not deadline.passed(), (scene.name, evidence.unsettled(stage, mails, found))
        # There is no event for “everything is where it belongs”; the next look takes its time by itself.


def _told(stage: Stage, silent: int) -> bool:
    """Whether the log says of every queue id that is no longer in use (but a few) that it was removed."""
    untold = 0
    for service in ("sender", "postfix"):
        container = stage.container(service)
        log = stage.lab.engine.logs(container, since=stage.begun)
        active = set(re.findall(r"qmgr\[\d+\]: (\w+): from=<", log))
        left = set(re.findall(r": (\w+): removed", log))
        listed = stage.run(service, "postqueue", "-j").splitlines()
        untold += len(active - left - {json.loads(line)["queue_id"] for line in listed})
    return untold == silent


def _logs(stage: Stage, begun: float) -> str:
    """What the services logged since, merged by time."""

    def of(name: str) -> list[str]:
        log = stage.lab.engine.logs(stage.container(name), since=begun, timestamps=True)
        return [f"{name} | {line}" for line in log.splitlines()]

    lines = heapq.merge(*(of(name) for name in ("postfix", "dovecot", "sender")), key=lambda line: line.split(" | ")[1])
    return "".join(f"{line}\n" for line in lines)


def _clear(stage: Stage) -> None:
    """Empty queues, for the next scene."""
    for service in ("sender", "postfix"):
        if stage.run(service, "postqueue", "-j").strip():
            stage.run(service, "postsuper", "-d", "ALL")


def _blameless(stage: Stage, text: str) -> None:
    """No secret of the lab is in what it logged."""
    known = list(files.passwords(stage.lab.directory.files).values())
    if relay := files.read_relay(stage.lab.directory.files):
        known.append(relay[1])
    for secret in known:
        value = secret.reveal()
        for form in (value, base64.b64encode(value.encode()).decode()):
            assert form not in text, "a password is in a log"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
