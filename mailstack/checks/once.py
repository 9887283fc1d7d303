"""Values that several threads need and one thread computes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """Compute each value when it is first requested by its name. Other threads that request it wait meanwhile."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """Return the value of `name`; call `make` if there is none yet. Raises the errors of `make`, each time."""
        with self._turns[name]:
            if name not in self._values:
                self._values[name] = make()
            value: T = self._values[name]
        return value
