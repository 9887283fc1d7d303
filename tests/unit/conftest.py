"""For all unit tests."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes says more of the machine, and what else it does, than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
