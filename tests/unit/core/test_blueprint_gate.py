"""The steps of a gate: what was not measured has not passed."""

from __future__ import annotations

from typing import Any

import pytest

from hotswap.core.blueprint import Gate, Replay
from hotswap.core.blueprint_gate import MISFIT, loaded, refused, replayed
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.views import VersionView
from hotswap.errors import SignatureMismatch


def _view(**changes: Any) -> VersionView:
    fields: dict[str, Any] = {"instances": 2, "memory_bytes": 64 << 20, "steady_ms": 2.0}
    fields |= {"samples": True, "unvalidated": False} | changes
    return VersionView(
        version="v2", digest="", runtime="", state="READY", role="", weight=0.0, load_seconds=0.1,
        changelog="", metadata={}, reason="", uri="", created_at=0.0, created_by="", **fields,
    )  # fmt: skip


def _steps(gate: Gate, view: VersionView) -> dict[str, bool]:
    return {step.name: step.passed for step in loaded(gate, view, "v1")}


def test_only_what_is_asked_for_is_judged() -> None:
    """Signature and samples are always told: the server checks them anyway."""
    assert _steps(Gate(), _view()) == {"signature": True, "samples": True}


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, ""),
        ({"steady_ms": 6.0}, "latency"),
        ({"steady_ms": None}, "latency"),
        ({"memory_bytes": 201 << 20}, "memory"),
        ({"memory_bytes": 0}, "memory"),
        ({"instances": 0}, "memory"),
        ({"samples": False}, "samples"),
        ({"unvalidated": True}, "samples"),
    ],
)
def test_each_budget_is_held(changes: dict[str, Any], failing: str) -> None:
    """Memory is that of one process."""
    gate = Gate(samples=True, max_latency_ms=5, max_memory_mb=100)
    steps = _steps(gate, _view(**changes))
    assert [name for name, passed in steps.items() if not passed] == ([failing] if failing else [])


def test_made_up_rows_are_told() -> None:
    """They pass where no samples are asked for, and are called what they are."""
    (_, step) = loaded(Gate(), _view(samples=False), None)
    assert step.passed
    assert "made-up" in step.sentence


def test_a_refusal_to_load_is_a_step_that_failed() -> None:
    """By the server's own sentence."""
    (misfit,) = refused(f"the version {MISFIT}: input 'x' is missing")
    assert (misfit.name, misfit.passed) == ("signature", False)
    (broken,) = refused("m/v2: ValueError: no")
    assert (broken.name, broken.sentence) == ("samples", "m/v2: ValueError: no")


def test_the_servers_words_are_known() -> None:
    """What tells a signature's refusal from all others is what the server says."""
    from hotswap.core.adaptation import adapt

    wide, narrow = (
        Signature((TensorSpec("x", "FP64", (-1, n)),), (TensorSpec("y", "FP64", (-1,)),))
        for n in (3, 2)
    )
    with pytest.raises(SignatureMismatch, match=MISFIT):
        adapt(wide, narrow)


@pytest.mark.parametrize(
    ("answer", "passed", "said"),
    [
        ({"rows": 500, "errors": 0, "agreement": 0.99}, True, "500 recorded rows: 0 failed, 1.00%"),
        ({"rows": 500, "errors": 0, "agreement": 0.9}, False, "10.00% answered otherwise"),
        ({"rows": 500, "errors": 1, "agreement": 1.0}, False, "1 failed"),
        ({"rows": 500, "errors": 0, "agreement": None}, False, "how many differ is not known"),
        ({"rows": 0, "errors": 0, "agreement": None}, False, "at least 1 are needed"),
        ({"rows": True, "errors": 0}, False, "does not say"),
        ({}, False, "does not say"),
    ],
)
def test_a_replay_is_judged(answer: dict[str, Any], passed: bool, said: str) -> None:
    """No rows, or no agreement where one is asked for, is no pass."""
    step = replayed(Replay(max_disagreement=0.05), answer)
    assert step.passed is passed
    assert said in step.sentence


def test_without_a_limit_disagreement_is_free() -> None:
    """Errors are not, unless they are allowed."""
    assert replayed(Replay(), {"rows": 5, "errors": 0, "agreement": None}).passed
    assert replayed(Replay(max_errors=2), {"rows": 5, "errors": 2, "agreement": 0.1}).passed
