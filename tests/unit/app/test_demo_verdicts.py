"""What the demo says of a rollout, and what it calls wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from hotswap.app import demo_verdicts
from hotswap.app.demo_bench import DemoModel, DemoVersion
from hotswap.app.demo_rollouts import CASES, Told
from hotswap.app.demo_traffic import Answer
from hotswap.app.demo_verdicts import Verdict, verdicts
from hotswap.core.decide import decide
from hotswap.core.evidence import Arm, Evidence, Stage
from hotswap.core.journal import Entry, Record
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Observation, Rollout, Status
from hotswap.core.rollout_views import JournalView
from hotswap.core.strategy import parse
from tests.unit.web import samples

RAISES = DemoVersion("v4", "Python", "", Path(), np.array([np.nan, 1.0]))
GIVES = DemoVersion("v2", "ONNX", "", Path(), np.array([0.0, 1.0]))
MODEL = DemoModel("cancer", "classification", np.zeros((2, 1)), np.zeros(2), (GIVES, RAISES))
CASE = CASES[2]
WHY = "a worker found v4 failing"


def journal() -> tuple[JournalView, ...]:
    """v4 is warm, then a worker says that it fails: decided after 18 requests of its own."""
    spec = parse(CASE.body("cancer"))
    rollout = Rollout("r4", spec, compile_steps(spec), Status(), "v2")
    entries = [Entry(1, 100.0, "started", Record(rollout, rollout.status))]
    stage = Stage(1, 1000, baseline=Arm(150), candidate=Arm(18, errors=4))
    for number, seen in enumerate(
        [
            Observation(active="v2", ready=True),
            Observation(active="v2", ready=True, breaker=WHY),
            Observation(active="v2", ready=True, breaker=WHY),
        ]
    ):
        after = decide(rollout, seen, 0.5).status
        record = Record(rollout, after, seen, 0.5)
        entries.append(Entry(number + 2, 100.5 + number, "decided", record))
        evidence = Evidence(stages=(stage,))
        rollout = msgspec.structs.replace(rollout, status=after, evidence=evidence)
    return tuple(entry.view() for entry in entries)


def told(phase: str = "RolledBack", entries: tuple[JournalView, ...] | None = None) -> Told:
    view = samples.rollout(id="r4", model="cancer", version="v4", stable="v2", phase=phase)
    return Told(CASE, view, journal() if entries is None else entries, 10.0, 20.0)


def answer(sent: float, version: str = "v2", row: int = 0, **more: Any) -> Answer:
    return Answer("cancer", row, sent, 0.01, version, version, 0.0, **more)


GOOD = [answer(9.0), answer(11.0, "v4", 1), answer(12.0, fallback="error"), answer(21.0)]


def one(answers: list[Answer], each: Told | None = None) -> Verdict:
    (verdict,) = verdicts([MODEL], answers, [each or told()])
    return verdict


def test_who_saw_what_is_the_clients_own_count() -> None:
    """From the start to the end; other models and what was before are not counted."""
    other = Answer("digits", 0, 11.0, 0.01, "v1", "v1", 0.0)
    verdict = one([*GOOD, answer(13.0, problem="503"), other])
    assert (verdict.requests, verdict.failures, verdict.replaced) == (3, 1, 1)
    assert verdict.versions == {"v2": 1, "v4": 1}


def test_the_decision_is_the_entry_that_decided() -> None:
    """How much was known then, and its sentence; the journal verifies."""
    verdict = one(GOOD)
    assert (verdict.counted, verdict.pairs) == (18, 0)
    assert WHY in verdict.why
    assert verdict.decisions == 3
    assert verdict.wrong == ()


def changed() -> tuple[JournalView, ...]:
    first, second, *rest = journal()
    after = {**second.record["after"], "step": 4}
    record = {**second.record, "after": after}
    return (first, msgspec.structs.replace(second, record=record), *rest)


@pytest.mark.parametrize(
    ("answers", "each", "sentence"),
    [
        (GOOD, told("Healthy"), "v4 ended Healthy and not RolledBack"),
        (GOOD, told(entries=changed()), "entry 2: "),
        (GOOD, told(entries=()), "holds no decision"),
        (GOOD[:2], told(), "no answer of v4 was replaced"),
        ([*GOOD, answer(22.0, "v4", 1)], told(), "1 requests that began after the end"),
        ([*GOOD, answer(14.0, row=1, fallback="error")], told(), "which it does not fail to give"),
    ],
    ids=["promoted", "changed", "empty", "not replaced", "late", "replaced without need"],
)
def test_what_does_not_hold_is_said(answers: list[Answer], each: Told, sentence: str) -> None:
    """Each lie of the story is one sentence."""
    assert [sentence in wrong for wrong in one(answers, each).wrong] == [True]


def test_an_unseen_version_must_not_answer() -> None:
    """A mistake that was to be caught in the shadow, and answered somebody, is told."""
    case = CASES[1]
    view = samples.rollout(id="r3", model="cancer", version="v3", stable="v2")
    (verdict,) = verdicts([MODEL], [answer(11.0, "v3")], [Told(case, view, journal(), 10.0, 20.0)])
    assert verdict.wrong == ("v3 answered 1 requests, and was to answer none",)


def test_what_the_next_rollout_does_is_not_judged() -> None:
    """Once the next was asked for, another version may answer."""
    following = later(told(), 30.0, 40.0)
    first, _ = verdicts([MODEL], [*GOOD, answer(31.0, "v4", 1)], [told(), following])
    assert first.late == 0


def later(each: Told, begin: float, end: float) -> Told:
    return Told(each.case, each.view, each.journal, begin, end)


def test_it_is_shown_with_its_reason() -> None:
    """The table, the sentence, and that the journal verifies."""
    console = Console(file=io.StringIO(), width=120)
    demo_verdicts.show(console, [one(GOOD)])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "v2 → v4" in text
    assert "after 18 requests of its own" in text
    assert WHY in text
    assert "3 decisions follow from the journal" in text
    assert "Wrong" not in text


def test_reports_are_written(tmp_path: Path) -> None:
    """One HTML account a rollout, in a folder that is made."""
    (path,) = demo_verdicts.reports([told()], tmp_path / "reports")
    assert path.name == "cancer-v4.html"
    assert "v4" in path.read_text()
