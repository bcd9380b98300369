"""Rollouts and journals read from JSON, in which what is not finite is null. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from hotswap.core.rollout_views import JournalView, MetricView, PlanView, RolloutView
from hotswap.errors import BadInput

T = TypeVar("T")


def read_rollout(value: object) -> RolloutView:
    """A rollout's view. Raises `BadInput` if it is none."""
    if isinstance(value, Mapping):
        metrics = value.get("metrics")
        value = {**value, "metrics": [_metric(each) for each in _list(metrics)]}
    return _as(value, RolloutView, "a rollout")


def read_metric(value: object) -> MetricView | None:
    """A metric's view, None for anything else: journals of other versions may hold it."""
    try:
        return _as(_metric(value), MetricView, "a metric")
    except BadInput:
        return None


def read_plan(value: object) -> PlanView:
    """A plan's view. Raises `BadInput` if it is none."""
    return _as(value, PlanView, "a plan")


def read_journal(value: object) -> list[JournalView]:
    """A journal's entries, in order: a list of them, or an object that holds one.

    Raises `BadInput` if it is neither.
    """
    return sorted(
        _as(entries(value, "a journal"), list[JournalView], "a journal"),
        key=lambda entry: entry.number,
    )


def entries(value: object, what: str) -> list[Any]:
    """The list that ``value`` is or holds under its only list. Raises `BadInput` if there is none.

    >>> entries({"rollouts": [1]}, "a list"), entries([2], "a list")
    ([1], [2])
    """
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        lists = [each for each in value.values() if isinstance(each, list)]
        if len(lists) == 1:
            return lists[0]
    raise BadInput(f"this is not {what}")


def _metric(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    endless = {name: math.inf for name in ("evidence", "proof") if value.get(name, 0) is None}
    return {**value, **endless}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _as(value: object, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        raise BadInput(f"this is not {what}: {problem}") from None
