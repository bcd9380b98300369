"""The phase and its reason, from the status alone."""

from __future__ import annotations

import pytest

from hotswap.core.phases import phase, reason
from hotswap.core.rollout import Status

PHASES = {
    "queued": "Preparing", "preparing": "Preparing", "running": "Progressing",
    "promoting": "Promoting", "baking": "Baking", "watching": "Healthy", "healthy": "Healthy",
    "completed": "Completed", "rolling_back": "RollingBack", "rolled_back": "RolledBack",
    "failed": "Failed", "degraded": "Degraded",
}  # fmt: skip


@pytest.mark.parametrize(("state", "shown"), PHASES.items())
def test_each_state_has_its_phase(state: str, shown: str) -> None:
    """Every state is shown as one of the phases of the glossary."""
    assert phase(Status(state)) == shown


@pytest.mark.parametrize(
    "held", ["user", "approval", "capacity", "store", "metrics_outage", "sample_ratio",
             "insufficient"],
)  # fmt: skip
def test_what_is_held_while_it_runs_is_paused(held: str) -> None:
    """Any reason to hold makes a running rollout Paused, for that reason."""
    status = Status("running", reason="step", holds={held: 1.0})
    assert (phase(status), reason(status)) == ("Paused", held)


def test_people_come_first_among_reasons() -> None:
    """Of several reasons the one that a person can end is told."""
    both = {"insufficient": 9.0, "capacity": 5.0, "approval": 1.0, "user": 0.0}
    assert reason(Status("running", holds=both)) == "user"
    assert reason(Status("running", holds={"insufficient": 9.0, "capacity": 5.0})) == "capacity"


@pytest.mark.parametrize("state", ["rolled_back", "healthy", "rolling_back", "preparing"])
def test_elsewhere_the_reason_is_the_statuss(state: str) -> None:
    """Holds that are left over say nothing once it is on its way."""
    assert reason(Status(state, reason="guardrail", holds={"user": 1.0})) == "guardrail"
