"""The gate before a rollout: the version is loaded, measured, and run over recorded traffic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hotswap.cli.client import Client, CommandFailed, Unreachable, segment
from hotswap.cli.plan_file import model_of
from hotswap.core.blueprint import Gate, Replay
from hotswap.core.blueprint_gate import GateStep, loaded, refused, replayed

#: Answers that are about the version, not about the caller.
_ABOUT_IT: Final = (400, 403, 409, 500, 507)


def steps(client: Client, model: str, version: str, gate: Gate) -> Iterator[GateStep]:
    """One after another; none after the first that is not passed.

    Raises `CommandFailed` where the server could not be asked.
    """
    path = f"/api/v1/models/{segment(model)}/versions/{segment(version)}"
    try:
        client.post(f"{path}/load")
    except CommandFailed as problem:
        if problem.status not in _ABOUT_IT:
            raise
        yield from refused(problem.message)
        return
    view = model_of(client, model)
    mine = next((each for each in view.versions if each.version == version), None)
    if mine is None or mine.state != "READY":
        reason = mine.reason if mine is not None else ""
        yield GateStep("samples", False, reason or f"{version} is not ready although it was loaded")
        return
    for step in loaded(gate, mine, view.active):
        yield step
        if not step.passed:
            return
    if gate.replay is not None:
        yield _replay(client, path, gate.replay)


def _replay(client: Client, path: str, wanted: Replay) -> GateStep:
    body: dict[str, Any] = {"since_seconds": wanted.since_seconds, "max_rows": wanted.max_rows}
    given = {name: value for name, value in body.items() if value is not None}
    try:
        answer = client.post(f"{path}/replay", given)
    except Unreachable:
        raise
    except CommandFailed as problem:
        if problem.status in (None, 401):
            raise
        return GateStep("replay", False, problem.message)
    return replayed(wanted, answer if isinstance(answer, dict) else {})
