"""Format durations for users."""

from __future__ import annotations


def spoken(seconds: float) -> str:
    """Return a duration in one or two rounded units: `41 ms`, `1.3 s`, `12 s`, `4 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 0:
        return f"-{spoken(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if (whole := round(seconds)) < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two_units(whole, 60, "min", "s")
    if (minutes := round(seconds / 60)) < 24 * 60:
        return _two_units(minutes, 60, "h", "min")
    return _two_units(round(seconds / 3600), 24, "d", "h")


def _two_units(count: int, size: int, large: str, small: str) -> str:
    many, few = divmod(count, size)
    return f"{many} {large}" + (f" {few} {small}" if few else "")
