"""What became of the demo's rollouts: who saw what, after how many requests, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotswap.app.demo_bench import DemoModel
from hotswap.app.demo_rollouts import Told
from hotswap.app.demo_traffic import Answer
from hotswap.core.journal import record_of
from hotswap.core.rollout_views import MetricView
from hotswap.core.verification import verify
from hotswap.web import phrases, report

#: Phases in which it is decided already.
_DECIDED: Final = ("Promoting", "Baking", "Healthy", "RollingBack", "RolledBack")


@dataclass(frozen=True)
class Verdict:
    """One rollout as its users and its journal show it.

    ``requests``, ``failures``, ``versions`` and ``replaced`` are the clients' own counts, from the
    start of the rollout to its end: sent, not answered, answered by which version, and answered by
    stable in the candidate's place. ``late``: answers by another version than it left in service, to
    requests that began after its end. ``pairs`` and ``counted``: how many requests had been asked of both
    versions, and how many had been the candidate's to answer, when it was decided, after
    ``seconds``; ``why`` is the decision's sentence. ``decisions`` were made again from the journal.
    ``wrong``: what does not hold, a sentence each.
    """

    version: str
    stable: str
    id: str
    phase: str
    why: str
    seconds: float
    pairs: int
    counted: int
    requests: int
    failures: int
    versions: dict[str, int]
    replaced: int
    late: int
    decisions: int
    wrong: tuple[str, ...]


def verdicts(
    models: Sequence[DemoModel], answers: Sequence[Answer], told: Sequence[Told]
) -> list[Verdict]:
    """One of each rollout, in their order. What was sent until the next began is looked at."""
    known = {model.name: model for model in models}
    ends = [each.begin for each in told[1:]] + [float("inf")]
    return [
        _verdict(known[each.view.model], answers, each, until)
        for each, until in zip(told, ends, strict=False)
    ]


def _verdict(model: DemoModel, answers: Sequence[Answer], told: Told, until: float) -> Verdict:
    view, case = told.view, told.case
    mine = [each for each in answers if each.model == view.model]
    during = [each for each in mine if told.begin <= each.sent < told.end]
    left = view.version if case.end == "Healthy" else (view.stable or "")
    after = [each for each in mine if told.end <= each.sent and each.sent + each.seconds < until]
    late = sum(not each.problem and each.version != left for each in after)
    versions = Counter(each.version for each in during if not each.problem)
    replaced = sum(bool(each.fallback) for each in during)
    pairs, counted, why, seconds = _decision(told)
    result = verify(told.journal)
    name = view.version
    wrong = [f"entry {each.number}: {each.message}" for each in result.mismatches]
    if view.phase != case.end:
        wrong.append(f"{name} ended {view.phase} and not {case.end}: {view.message}")
    if result.decisions == 0:
        wrong.append(f"the journal of {name} holds no decision")
    if case.unseen and versions[name]:
        wrong.append(f"{name} answered {versions[name]} requests, and was to answer none")
    if case.replaced and not replaced:
        wrong.append(f"no answer of {name} was replaced, and some of them must have failed")
    spared = sum(each.fallback == "error" and not _raises(model, name, each) for each in during)
    if spared:
        wrong.append(f"{spared} answers of {name} were replaced, which it does not fail to give")
    if late:
        wrong.append(f"{late} requests that began after the end were not answered by {left}")
    return Verdict(
        name,
        view.stable or "",
        view.id,
        view.phase,
        why,
        seconds,
        pairs,
        counted,
        len(during),
        sum(bool(each.problem) for each in during),
        dict(sorted(versions.items())),
        replaced,
        late,
        result.decisions,
        tuple(wrong),
    )


def _raises(model: DemoModel, version: str, answer: Answer) -> bool:
    """Whether that version is known to raise on the row that was asked for."""
    found = model.version(version)
    return found is not None and math.isnan(float(found.expected[answer.row]))


def _decision(told: Told) -> tuple[int, int, str, float]:
    """Pairs, the candidate's requests, the sentence and the seconds of the entry that decided."""
    for entry in told.journal:
        if entry.kind == "decided" and entry.phase in _DECIDED:
            record = record_of(entry)
            stages = record.before.evidence.stages
            pairs = sum(stage.pairs.total for stage in stages)
            counted = sum(stage.candidate.requests for stage in stages)
            why = entry.message
            if entry.phase == "Promoting":  # which says that it was shown, but not how well
                why += f" ({_proofs(record.metrics)})"
            return pairs, counted, why, entry.at - told.journal[0].at
    return 0, 0, told.view.message, told.view.elapsed_seconds


def _proofs(metrics: Sequence[MetricView]) -> str:
    odds = [f"{each.name} {phrases.odds(each.proof)}" for each in metrics if each.proof > 1]
    return f"proof: {', '.join(odds)}" if odds else "nothing had to be proved"


def reports(told: Sequence[Told], folder: Path) -> list[Path]:
    """Write each rollout's account as `hotswap rollout report` does; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for each in told:
        path = folder / f"{each.view.model}-{each.view.version}.html"
        path.write_text(report.write(each.view, each.journal, "html").text, "utf-8")
        written.append(path)
    return written


def show(console: Console, found: Sequence[Verdict]) -> None:
    """Print them: a table of who saw what, and why it was decided so."""
    table = Table(
        title="Rollouts, as clients saw them",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("rollout")
    table.add_column("ended")
    table.add_column("answered by")
    for name in ("requests", "failed", "replaced by stable's"):
        table.add_column(name, justify="right")
    for each in found:
        by = ", ".join(f"{version} ×{count:,}" for version, count in each.versions.items())
        table.add_row(
            f"{each.stable} → {each.version}",
            each.phase,
            by or "–",
            f"{each.requests:,}",
            str(each.failures),
            str(each.replaced),
        )
    console.print(table)
    for each in found:
        text = Text.assemble((each.version, "bold"), f" was decided {decided(each)}.\n")
        text.append(f"   Why: {each.why}.\n")
        text.append(f"   Verified: {follow(each.decisions)} from the journal.")
        console.print(text, highlight=False, soft_wrap=True)
        for sentence in each.wrong:
            console.print(Text(f"   Wrong: {sentence}", "red"), soft_wrap=True)
    console.print()


def decided(verdict: Verdict) -> str:
    """After how much, in words.

    >>> from types import SimpleNamespace
    >>> decided(SimpleNamespace(pairs=28, counted=0, seconds=1.04))
    'after 28 requests that both versions were asked, in 1.0 s'
    """
    parts = []
    if verdict.pairs:
        parts.append(f"{verdict.pairs:,} requests that both versions were asked")
    if verdict.counted or not parts:
        parts.append(f"{verdict.counted:,} requests of its own")
    return f"after {' and '.join(parts)}, in {verdict.seconds:.1f} s"


def follow(decisions: int) -> str:
    """How many decisions were made again, with its verb.

    >>> follow(1), follow(4)
    ('1 decision follows', '4 decisions follow')
    """
    return "1 decision follows" if decisions == 1 else f"{decisions} decisions follow"


def plain(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """They as plain values, for JSON."""
    return [
        {
            "rollout": each.id,
            "from": each.stable,
            "to": each.version,
            "phase": each.phase,
            "why": each.why,
            "decided_seconds": each.seconds,
            "decided_pairs": each.pairs,
            "decided_requests": each.counted,
            "requests": each.requests,
            "failures": each.failures,
            "answers": each.versions,
            "replaced": each.replaced,
            "late": each.late,
            "decisions_verified": each.decisions,
            "wrong": list(each.wrong),
        }
        for each in found
    ]
