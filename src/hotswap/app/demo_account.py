"""What the demo saw, as figures and as tables."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hotswap.app import demo_verdicts
from hotswap.app.demo_bench import DemoModel, DemoVersion
from hotswap.app.demo_rollouts import Told
from hotswap.app.demo_server import Move
from hotswap.app.demo_traffic import Answer
from hotswap.app.demo_verdicts import verdicts


@dataclass(frozen=True)
class Window:
    """The requests of one model that were sent in one stretch of time. Milliseconds."""

    title: str
    requests: int
    failures: int
    p50: float | None
    p99: float | None
    versions: dict[str, int]


@dataclass(frozen=True)
class Score:
    """One version as its live answers show it.

    ``score`` is accuracy, or R² for a regression, over the held-out ``rows`` it was asked for, each
    counted once; of a version that answered nobody it is what its artifact predicts for all of
    them. ``differing`` counts answers that are not what the artifact's own library predicts for
    that row.
    """

    model: str
    version: DemoVersion
    answers: int
    rows: int
    measure: str
    score: float
    differing: int


def failures(answers: Iterable[Answer]) -> list[Answer]:
    """The requests that were not answered."""
    return [each for each in answers if each.problem]


def stale(answers: Sequence[Answer], moves: Sequence[Move]) -> list[Answer]:
    """Answers to requests that began after a switch had returned, but by another version.

    What began after the next switch of that model was asked for is not judged.
    """
    found = []
    for model in {move.model for move in moves}:
        mine = [move for move in moves if move.model == model]
        for move, following in zip(mine, [*mine[1:], None], strict=True):
            until = following.begin if following else float("inf")
            found += [
                each
                for each in answers
                if each.model == model
                and not each.problem
                and move.end < each.sent
                and each.sent + each.seconds < until
                and each.version != move.target
            ]
    return found


def mixed(answers: Iterable[Answer], models: Iterable[DemoModel]) -> list[Answer]:
    """Answers that no single version gave: header and body disagree, or the value is not its own."""
    known = {model.name: model for model in models}
    return [each for each in answers if not each.problem and not own(each, known[each.model])]


def own(answer: Answer, model: DemoModel) -> bool:
    """Whether the value is what the version that is named predicts for that row."""
    version = model.version(answer.version)
    if version is None or answer.named != answer.version:
        return False
    right = float(version.expected[answer.row])
    if model.task == "classification":
        return answer.prediction == right
    # Formats compute in 32 or 64 bits; beyond six digits they may differ.
    return abs(answer.prediction - right) <= 1e-5 * max(1.0, abs(right))


def window(title: str, answers: Sequence[Answer], model: str, begin: float, end: float) -> Window:
    """What was sent for ``model`` from ``begin`` until ``end``."""
    mine = [each for each in answers if each.model == model and begin <= each.sent < end]
    good = [each.seconds * 1e3 for each in mine if not each.problem]
    versions = Counter(each.version for each in mine if not each.problem)
    return Window(
        title,
        len(mine),
        len(failures(mine)),
        float(np.quantile(good, 0.5)) if good else None,
        float(np.quantile(good, 0.99)) if good else None,
        dict(sorted(versions.items())),
    )


def windows(answers: Sequence[Answer], moves: Sequence[Move], model: str) -> list[Window]:
    """Before, during and after each move of ``model``, in order."""
    mine = [move for move in moves if move.model == model]
    if not mine or not answers:
        return []
    last = max(each.sent for each in answers) + 1e-6
    found = []
    begin = min(each.sent for each in answers)
    for move in mine:
        found.append(window(f"{move.source} answers", answers, model, begin, move.begin))
        title = f"during the {move.kind} to {move.target}"
        found.append(window(title, answers, model, move.begin, move.end))
        begin = move.end
    found.append(window(f"{mine[-1].target} answers", answers, model, begin, last))
    return found


def scores(answers: Sequence[Answer], models: Iterable[DemoModel]) -> list[Score]:
    """Every version measured against the held-out labels, by what it answered."""
    found = []
    for model in models:
        for version in model.versions:
            mine = [
                each
                for each in answers
                if each.model == model.name and each.version == version.version and not each.problem
            ]
            by_row = {each.row: each.prediction for each in mine}
            offline = version.expected.astype(np.float64)
            given = np.array(list(by_row.values())) if mine else offline
            truth = model.labels[list(by_row) if mine else slice(None)].astype(np.float64)
            if model.task == "classification":
                measure, score = "accuracy", float((given == truth).mean())
            else:
                spread = float(((truth - truth.mean()) ** 2).sum())
                score = 1.0 - float(((truth - given) ** 2).sum()) / spread if spread else 0.0
                measure = "R²"
            differing = sum(not own(each, model) for each in mine)
            found.append(
                Score(model.name, version, len(mine), len(by_row), measure, score, differing)
            )
    return found


def show(
    console: Console,
    models: Sequence[DemoModel],
    answers: Sequence[Answer],
    moves: Sequence[Move],
    told: Sequence[Told] = (),
) -> bool:
    """Print the account; whether it is clean: no failure, no stale or mixed answer, and every
    rollout as it had to be.
    """
    for model in models:
        mine = windows(answers, moves, model.name)
        if mine:
            console.print(_window_table(model.name, mine))
    console.print(_move_table(moves))
    found = verdicts(models, answers, told)
    if found:
        demo_verdicts.show(console, found)
    console.print(_score_table(scores(answers, models)))
    failed, late, mix = failures(answers), stale(answers, moves), mixed(answers, models)
    for title, bad in (("failed", failed), ("stale", late), ("mixed", mix)):
        for each in bad[:3]:
            console.print(f"[red]{title}[/]: {escape(str(each))}", soft_wrap=True)
    wrong = [sentence for each in found for sentence in each.wrong]
    clean = bool(answers) and not failed and not late and not mix and not wrong
    colour = "green" if clean else "red"
    console.print(
        f"[bold {colour}]{len(answers):,} requests, {len(failed)} failures, {len(moves)} switches, "
        f"{len(found)} rollouts.[/]\n"
        f"Answers by the old version after a switch had returned: {len(late)}.\n"
        f"Answers that are not the ones of the version they name: {len(mix)}.\n",
        highlight=False,
    )
    return clean


def write(
    console: Console,
    models: Sequence[DemoModel],
    answers: Sequence[Answer],
    moves: Sequence[Move],
    told: Sequence[Told] = (),
) -> bool:
    """As `show`, but as one JSON object on standard output (``console`` is for people)."""
    del console
    wrong = {
        "failures": len(failures(answers)),
        "stale": len(stale(answers, moves)),
        "mixed": len(mixed(answers, models)),
    }
    found = verdicts(models, answers, told)
    clean = bool(answers) and not any(wrong.values()) and not any(each.wrong for each in found)
    account = {
        "ok": clean,
        "requests": len(answers),
        **wrong,
        "switches": [
            {
                "model": move.model,
                "kind": move.kind,
                "from": move.source,
                "to": move.target,
                "prepare_ms": move.prepare_ms,
                "flip_ms": move.flip_ms,
            }
            for move in moves
        ],
        "rollouts": demo_verdicts.plain(found),
        "traffic": {model.name: windows(answers, moves, model.name) for model in models},
        "versions": [
            {
                "model": each.model,
                "version": each.version.version,
                "format": each.version.format,
                "answers": each.answers,
                "rows": each.rows,
                "measure": each.measure,
                "score": each.score,
                "differing": each.differing,
            }
            for each in scores(answers, models)
        ],
    }
    emit(account)
    return clean


def emit(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
    sys.stdout.flush()


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def prepared(move: Move) -> str:
    """How long the target was loaded and warmed up for, in words."""
    return "was warm" if move.prepare_ms < 1 else f"{move.prepare_ms:.0f} ms"


def flipped(move: Move) -> str:
    """How long the flip itself took, in the unit that shows it."""
    return f"{move.flip_ms * 1e3:.1f} µs" if move.flip_ms < 0.1 else f"{move.flip_ms:.2f} ms"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ms"


def _window_table(model: str, found: Sequence[Window]) -> Table:
    table = _table(
        f"{model}: live traffic", ["when", "answered by"], ["requests", "failed", "p50", "p99"]
    )
    for each in found:
        by = ", ".join(f"{version} ×{count:,}" for version, count in each.versions.items()) or "–"
        table.add_row(
            each.title, by, f"{each.requests:,}", str(each.failures), _ms(each.p50), _ms(each.p99)
        )
    return table


def _move_table(moves: Sequence[Move]) -> Table:
    table = _table("Switches, under that traffic", ["model", "what"], ["load and warm up", "flip"])
    for move in moves:
        what = f"{move.kind} {move.source} → {move.target}"
        table.add_row(move.model, what, prepared(move), flipped(move))
    return table


def _score_table(found: Sequence[Score]) -> Table:
    table = _table(
        "Versions, by their live answers",
        ["model", "version", "format"],
        ["answers", "held-out rows", "by their labels"],
    )
    for each in found:
        table.add_row(
            each.model,
            each.version.version,
            each.version.format,
            f"{each.answers:,}",
            f"{each.rows:,}" if each.answers else "offline",
            f"{each.measure} {each.score:.3f}",
        )
    return table
