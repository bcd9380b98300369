"""Explicit steps as operators write them, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hotswap.core.durations import SECONDS, seconds_of
from hotswap.errors import BadInput

_FORMS = "a weight in percent, {weight}, {hold_seconds}, {requests}, {approval: true} or {shadow_percentage}"


def parse_steps(given: object) -> tuple[dict[str, Any], ...]:
    """Each step as an object with one key: weight, hold (s), requests, approval, shadow (percent).

    Raises `BadInput` for unknown forms, and unless weights only grow.

    >>> parse_steps([5, {"hold_minutes": 1}, {"weight": 25}])
    ({'weight': 5.0}, {'hold': 60.0}, {'weight': 25.0})
    """
    if not isinstance(given, list) or not given:
        raise BadInput(f"steps must be a list, each entry {_FORMS}")
    if len(given) > 200:
        raise BadInput("at most 200 steps can be given")
    steps = tuple(_step(number, each) for number, each in enumerate(given, 1))
    before = 0.0
    for step in steps:
        weight = step.get("weight")
        if weight is not None:
            if weight <= before:
                raise BadInput(
                    f"weights must grow from step to step: {weight:g} follows {before:g}"
                )
            before = weight
        elif before == 100.0:
            raise BadInput(
                "nothing can follow weight 100: that is the promotion, and bake_seconds says how "
                "long the version before is kept"
            )
        if "shadow" in step and before:
            raise BadInput("shadow_percentage must come before the first weight")
    if before == 0.0 and not any("shadow" in step for step in steps):
        raise BadInput("steps need at least one weight or shadow_percentage")
    return steps


def _step(number: int, given: object) -> dict[str, Any]:
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = {"weight": given}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise BadInput(f"step {number} must be {_FORMS}")
    key, value = next(iter(given.items()))
    stem, _, unit = str(key).rpartition("_")
    if stem == "hold" and unit in SECONDS:
        return {"hold": seconds_of(str(key), value, unit)}
    number_given = isinstance(value, int | float) and not isinstance(value, bool)
    if key in ("weight", "shadow_percentage"):
        if not number_given or not 0.01 <= value <= 100:
            raise BadInput(f"step {number}: {key} must be a percentage from 0.01 to 100")
        # Routing knows hundredths of a percent: what rounds to all requests is all requests.
        return {"weight" if key == "weight" else "shadow": round(float(value), 2)}
    if key == "requests":
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**9:
            raise BadInput(f"step {number}: requests must be a whole number from 1")
        return {"requests": value}
    if key == "approval":
        if value is not True:
            raise BadInput(f"step {number}: approval must be true")
        return {"approval": True}
    raise BadInput(f"step {number} has an unknown key {str(key)[:80]!r}: it must be {_FORMS}")
