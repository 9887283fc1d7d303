"""A target's Docker engine, as the rest of mailstack uses it.

Compose starts and stops containers. The engine lists objects, runs programs inside containers, and returns logs.
"""

from __future__ import annotations

from mailstack.engine.containers import Containers
from mailstack.engine.images import Images
from mailstack.engine.logs import Logs
from mailstack.engine.objects import EngineObjects
from mailstack.target.target import LocalTarget, Target


class Engine(EngineObjects, Images, Containers, Logs):
    """The engine of one target.

    engine = Engine(target)
    engine.services("mailstack-lab")
    """


def own_engine(target: Target) -> Engine | None:
    """Return this machine's own engine when the target is another machine, else None. It may not answer."""
    return Engine(LocalTarget(target.own_url)) if target.own_url else None
