"""Durations as people give them: a number with its unit in its name. Pure."""

from __future__ import annotations

from typing import Final

from hotswap.errors import BadInput

SECONDS: Final = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
#: No duration is longer: a year.
LONGEST: Final = 366 * 86400.0


def seconds_of(name: str, value: object, unit: str) -> float:
    """``value`` of ``unit`` in seconds. Raises `BadInput` unless it is a number from 0 to a year.

    >>> seconds_of("bake_minutes", 2, "minutes")
    120.0
    """
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value <= LONGEST / SECONDS[unit]:  # type: ignore[operator]
        raise BadInput(f"{name} must be a number from 0 to {LONGEST / SECONDS[unit]:g}")
    return float(value) * SECONDS[unit]  # type: ignore[arg-type]


def spoken(seconds: float) -> str:
    """A duration for people.

    >>> spoken(90), spoken(7200), spoken(0.5)
    ('1 min 30 s', '2 h', '0.5 s')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds < 86400:
        hours, rest = divmod(round(seconds), 3600)
        return f"{hours} h {rest // 60} min" if rest >= 60 else f"{hours} h"
    days, rest = divmod(round(seconds), 86400)
    return f"{days} d {rest // 3600} h" if rest >= 3600 else f"{days} d"
