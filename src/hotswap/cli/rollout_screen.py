"""A rollout on a terminal: steps, weights, metrics, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hotswap.core.rollout_views import MetricView, RolloutView, StepView
from hotswap.web import phrases

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

STYLES = {
    "good": "bold green",
    "bad": "bold red",
    "attention": "yellow",
    "active": "bold cyan",
    "quiet": "dim",
}
_MARKS = {
    "done": ("✔", "green"),
    "current": ("●", "bold cyan"),
    "waiting": ("○", "dim"),
    "skipped": ("⤼", "dim"),
}
_BAR = 40
_WIDE = 124


def style(word: str) -> str:
    """The style of a phase or a verdict."""
    return STYLES[phrases.tone(word)]


def screen(view: RolloutView, width: int, note: str = "") -> Group:
    """All of it. ``note``: what else is to be said, such as that the server does not answer."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_head(view), Text()]
    if view.steps:
        parts += [_rail(view.steps, width), Text()]
    parts += [*_weights(view), Text()]
    if view.metrics:
        parts += [_metrics(view, width), Text()]
    if view.message:
        parts.append(Text(phrases.clean(view.message), style(view.phase)))
    parts += [
        Text.assemble((f"{metric.name}: ", "dim"), phrases.clean(metric.sentence))
        for metric in view.metrics
        if metric.sentence and metric.verdict == "fail" and metric.sentence not in view.message
    ]
    parts += [Text(sentence, "dim") for sentence in map(phrases.clean, phrases.seen(view))]
    parts += [Text(phrases.clean(warning), "yellow") for warning in view.warnings]
    if note:
        parts.append(Text(phrases.clean(note), "bold yellow"))
    return Group(*parts)


def line(view: RolloutView) -> str:
    """It in one line, for logs."""
    parts = [f"[{phrases.duration(view.elapsed_seconds)}]", view.phase]
    reason = phrases.cause(view.phase, view.reason)
    if reason:
        parts.append(f"({reason})")
    where = phrases.position(view)
    if where:
        parts.append(where + ",")
    parts.append(shares(view))
    verdicts = [f"{m.name} {m.verdict}" for m in view.metrics if m.verdict != "insufficient"]
    if verdicts:
        parts.append("· " + ", ".join(verdicts))
    if view.message:
        parts.append("· " + view.message)
    return " ".join(phrases.clean(" ".join(parts)).split())


def shares(view: RolloutView) -> str:
    """Who answers how much, the most first."""
    ordered = sorted(view.weights.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{name} {phrases.percent(weight)}" for name, weight in ordered)


def _head(view: RolloutView) -> Text:
    from rich.text import Text

    text = Text()
    text.append(phrases.clean(view.model), "bold")
    text.append(f"  {phrases.clean(view.stable or 'nothing')} → ")
    text.append(phrases.clean(view.version), "bold")
    text.append(f"  {phrases.clean(view.strategy)}  {phrases.clean(view.id)}", "dim")
    if view.attempt > 1:
        text.append(f"  attempt {view.attempt}", "dim")
    text.append(f"  generation {view.generation}\n", "dim")
    text.append(phrases.clean(view.phase), style(view.phase))
    reason = phrases.cause(view.phase, view.reason)
    if reason:
        text.append(f" ({phrases.clean(reason)})", style(view.phase))
    verb = "took" if view.final else "running for"
    times = [phrases.position(view), f"{verb} {phrases.duration(view.elapsed_seconds)}"]
    if view.phase not in phrases.ENDED and view.steps:
        times.append(f"this step {phrases.duration(view.step_seconds)}")
    text.append("  " + " · ".join(each for each in times if each), "dim")
    return text


def _rail(steps: Iterable[StepView], width: int) -> Text:
    """The steps in a row; a line is broken between two of them, never within one."""
    from rich.cells import cell_len
    from rich.text import Text

    text, used = Text(), 0
    for step in steps:
        mark, look = _MARKS.get(step.state, ("?", "dim"))
        label = f"{mark} {phrases.clean(step.label)}"
        if used and used + 3 + cell_len(label) > width:
            text.append("\n")
            used = 0
        elif used:
            text.append(" ─ ", "dim")
            used += 3
        text.append(label, look)
        used += cell_len(label)
    return text


def _weights(view: RolloutView) -> list[Text]:
    from rich.text import Text

    names = [name for name in (view.stable, view.version) if name is not None]
    names += [name for name in view.weights if name not in names]
    longest = max(map(len, names))
    lines = []
    for name in names:
        weight = min(100.0, max(0.0, view.weights.get(name, 0.0)))
        filled = round(weight * _BAR / 100) or (1 if weight > 0 else 0)
        colour = "magenta" if name == view.version else "blue"
        text = Text(f"{phrases.clean(name):<{longest}}  ")
        text.append("━" * filled, colour)
        text.append("─" * (_BAR - filled), "dim")
        text.append(f" {phrases.percent(weight)}")
        lines.append(text)
    return lines


def _metrics(view: RolloutView, width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    wide = width >= _WIDE
    gap = 1 if wide else 0  # and one for the line between two columns
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap, 0, 0),
        header_style="bold",
    )
    table.add_column("Metric", overflow="fold")
    if wide:
        table.add_column(phrases.clean(view.stable or "stable"), justify="right", overflow="fold")
        table.add_column(phrases.clean(view.version), justify="right", overflow="fold")
    for column in ("Estimate", "Interval", "Margin", "Against", "Proof", "Needed"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("Verdict", overflow="fold")
    for metric in view.metrics:
        arms = [phrases.arm(metric, role) for role in ("stable", "candidate")] if wide else []
        cells = [_name(metric), *arms, *_evidence(metric)]
        row = [Text(phrases.clean(cell)) for cell in cells]
        table.add_row(*row, Text(phrases.clean(metric.verdict), style(metric.verdict)))
    return table


def _name(metric: MetricView) -> str:
    """Its name; below it what it is, if it is no guardrail that acts."""
    marks = [metric.role] if metric.role != "guardrail" else []
    marks += ["dry run"] if metric.dry_run else []
    return "\n".join([metric.name, *marks])


def _evidence(metric: MetricView) -> list[str]:
    """Estimate, interval, margin, evidence against, proof, and what either needs to decide."""
    return [
        phrases.compared(metric, metric.estimate),
        phrases.interval(metric),
        phrases.compared(metric, metric.margin),
        phrases.odds(metric.evidence),
        phrases.odds(metric.proof),
        phrases.odds(metric.needed),
    ]
