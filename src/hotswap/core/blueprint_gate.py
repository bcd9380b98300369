"""What a version must show before its rollout begins, judged step by step. Pure.

What was not measured has not passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hotswap.core.blueprint import Gate, Replay
from hotswap.core.views import VersionView

#: How the server begins the refusal of a version whose signature does not fit its model's.
MISFIT = "does not fit the model's signature"


class GateStep(msgspec.Struct, frozen=True):
    """One step of a gate: its name, whether it was passed, and why in a sentence."""

    name: str
    passed: bool
    sentence: str


def loaded(gate: Gate, view: VersionView, stable: str | None) -> Iterator[GateStep]:
    """The steps that are judged by what the server found when it loaded the version."""
    fits = f"it answers by the signature of {stable}" if stable else "it sets the model's signature"
    yield GateStep("signature", True, fits)
    yield _samples(gate, view)
    if gate.max_latency_ms is not None:
        yield _limit("latency", view.steady_ms, gate.max_latency_ms, "ms for one row")
    if gate.max_memory_mb is not None:
        own = view.memory_bytes / view.instances / 2**20 if view.instances else None
        yield _limit("memory", own or None, gate.max_memory_mb, "MiB in each process")


def refused(message: str) -> Iterator[GateStep]:
    """The steps that a refusal to load the version settles; ``message`` is the server's.

    >>> [step.name for step in refused("m/v2: ValueError: no")]
    ['samples']
    """
    if MISFIT in message:
        yield GateStep("signature", False, message)
    else:
        yield GateStep("samples", False, message)


def replayed(replay: Replay, answer: Mapping[str, Any]) -> GateStep:
    """The judgement of a run over recorded traffic; ``answer``: its rows, errors and agreement."""
    rows, errors = _count(answer.get("rows")), _count(answer.get("errors"))
    agreement = answer.get("agreement")
    if rows is None or errors is None:
        return GateStep("replay", False, "the server's answer does not say how many rows failed")
    said = f"{rows:,} recorded rows: {errors:,} failed"
    share = None
    if isinstance(agreement, int | float) and 0 <= agreement <= 1:
        share = 1.0 - agreement
        said += f", {share:.2%} answered otherwise"
    limits = f"at most {replay.max_errors:,} may fail"
    passed = errors <= replay.max_errors
    if replay.max_disagreement is not None:
        limits += f" and {replay.max_disagreement:.2%} differ"
        passed = passed and share is not None and share <= replay.max_disagreement
        if share is None:
            said += ", and how many differ is not known"
    if rows < replay.min_rows:
        passed = False
        limits = f"at least {replay.min_rows:,} are needed"
    return GateStep("replay", passed, f"{said} ({limits})")


def _samples(gate: Gate, view: VersionView) -> GateStep:
    if view.unvalidated:
        return GateStep("samples", False, "nothing tells what it takes, so it was never run")
    if view.samples:
        return GateStep("samples", True, "it answered the sample rows that it brings")
    made_up = "it brings no sample rows, and answered made-up ones"
    asked = ": name a file of them as 'samples' in its version.yaml" if gate.samples else ""
    return GateStep("samples", not gate.samples, made_up + asked)


def _limit(name: str, value: float | None, most: float, unit: str) -> GateStep:
    if value is None:
        return GateStep(name, False, f"it was not measured (at most {most:g} {unit})")
    return GateStep(name, value <= most, f"{value:.3g} {unit} (at most {most:g})")


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if good else None  # type: ignore[return-value]
