"""What a rollout would do, as a table."""

from __future__ import annotations

from typing import Any

from hotswap.cli import output
from hotswap.core.rollout_views import PlanView, StepPlan
from hotswap.web import phrases
from hotswap.web.reading import read_plan


def show(answer: Any) -> None:
    """Print the plan. Raises `BadInput` if the answer is none."""
    plan = read_plan(answer)
    output.say(
        (plan.model, "bold"),
        f"  {plan.stable or 'nothing'} → ",
        (plan.version, "bold"),
        (f"  {plan.strategy}, nothing was started", "dim"),
    )
    columns = ["", "Step", "Weight", "At least", "Requests needed", "Chance"]
    rows: list[list[output.Cell]] = [_row(*each) for each in enumerate(plan.steps, 1)]
    output.table(columns, rows, right=["", "Weight", "At least", "Requests needed", "Chance"])
    told = " ".join(plan.warnings)
    for number, step in enumerate(plan.steps, 1):
        if step.warning and step.warning not in told:
            output.say((f"step {number}: {step.warning}", "yellow"))
    for name, text in _facts(plan).items():
        output.say((f"{name:>17}  ", "dim"), text)
    for warning in plan.warnings:
        output.say((warning, "yellow"))


def _row(number: int, step: StepPlan) -> list[output.Cell]:
    low = step.chance is not None and step.chance < 0.5
    return [
        str(number),
        step.label,
        phrases.percent(step.weight),
        phrases.duration(step.seconds) if step.seconds else "",
        f"{step.requests:,}" if step.requests is not None else "",
        ("" if step.chance is None else phrases.chance(step.chance), "yellow" if low else ""),
    ]


def _facts(plan: PlanView) -> dict[str, str]:
    facts = {
        "shortest": phrases.duration(plan.shortest_seconds),
        "with proof": "cannot be told at this traffic"
        if plan.with_proof_seconds is None
        else phrases.duration(plan.with_proof_seconds),
        "false alarm": f"{_odds(plan.false_alarm)} of the versions that are no worse are rolled "
        "back, at most",
        "traffic now": f"{phrases.number(plan.requests_per_second)} requests/s, of which "
        f"{phrases.level('error_rate', plan.error_rate)} fail",
    }
    if plan.regression:
        facts["chance is of"] = f"catching {plan.regression} within the step's least duration"
    return facts


def _odds(chance: float) -> str:
    return phrases.percent(100 * chance)
