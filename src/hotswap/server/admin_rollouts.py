"""Routes for rollouts: start, look, command."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Request, Response

from hotswap.control.interface import Control
from hotswap.core.naming import check_name
from hotswap.core.rollout_views import PlanView, RolloutView
from hotswap.errors import BadInput, HotswapError
from hotswap.server.admin_replies import (
    Journal,
    Refused,
    Rollouts,
    answers,
    content,
    control_of,
    refused,
    reply,
)
from hotswap.server.admin_rollout_bodies import (
    NOTHING_ELSE,
    WHO,
    CommandBody,
    DryRun,
    RolloutStart,
    check_key,
    check_query,
)

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])
Service = Annotated[Control, Depends(control_of)]

COMMANDS: Final = {
    "promote": "Let the candidate take over now; 409 while a guardrail fails, unless forced.",
    "pause": "Stay in this step. Guardrails go on: they may still roll back.",
    "resume": "Go on after a pause.",
    "abort": "Give all traffic back to the stable version. Final: nothing resumes it.",
    "retry": "Start again at the first step, with fresh evidence.",
    "skip": "Go on to the next step; an approval is given this way too.",
}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {
    409: {
        "description": "Not possible in the present state, which comes along.",
        "content": content(Refused),
    }
}
_START: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The plan, of a dry run.", "content": content(PlanView)}
}


@router.post(
    "",
    status_code=201,
    responses=answers(RolloutView, 400, 404, 408, 413, 415, 503, 507, status=201)
    | _CONFLICT
    | _START,
)
async def start_rollout(
    request: Request, body: RolloutStart, control: Service, dry_run: DryRun = False
) -> Response:
    """Start a rollout, or with ``dry_run=1`` tell what it would do.

    Numbers that are infinite or unknown are null in every answer.
    """
    check_query(request, "dry_run")
    check_key(body)
    try:
        if dry_run:
            return reply(await control.plan_rollout(body))
        view = await control.start_rollout(body, who=WHO)
    except HotswapError as error:
        return await refused(error, lambda: running(control, body.get("model")))
    return reply(view, 201, {"location": f"/api/v1/rollouts/{view.id}"})


@router.get("", responses=answers(Rollouts, 400, 503))
async def list_rollouts(request: Request, control: Service, model: str | None = None) -> Response:
    """Rollouts, newest first; with ``model``, those of that model alone."""
    check_query(request, "model")
    if model is not None:
        check_name("model", model)
    return reply(Rollouts(await control.rollouts(model)))


@router.get("/{id}", responses=answers(RolloutView, 400, 404, 503))
async def show_rollout(id: str, control: Service) -> Response:
    """One rollout: its phase and why, its steps, weights, metrics and history."""
    return reply(await control.rollout(check_id(id)))


@router.get("/{id}/journal", responses=answers(Journal, 400, 404, 503))
async def show_journal(id: str, control: Service) -> Response:
    """Everything that was decided about a rollout, with what was known then; oldest first."""
    return reply(Journal(await control.rollout_journal(check_id(id))))


def _route(command: str) -> Callable[..., Awaitable[Response]]:
    async def act(
        id: str, control: Service, body: Annotated[CommandBody | None, Body()] = None
    ) -> Response:
        return await obey(control, check_id(id), command, body or NOTHING_ELSE)

    return act


for _command, _summary in COMMANDS.items():
    router.add_api_route(
        f"/{{id}}/{_command}",
        _route(_command),
        methods=["POST"],
        name=f"{_command}_rollout",
        description=_summary,
        responses=answers(RolloutView, 400, 404, 408, 413, 415, 503, 507) | _CONFLICT,
    )


async def obey(control: Control, id: str, command: str, body: CommandBody) -> Response:
    """Carry a command out, and answer with the rollout as it is then."""
    try:
        view = await control.command_rollout(
            id,
            command,
            generation=body.generation,
            idempotency_key=body.idempotency_key,
            force=body.force,
            why=body.why,
            who=WHO,
        )
    except HotswapError as error:
        return await refused(error, lambda: control.rollout(id))
    return reply(view)


def check_id(id: str) -> str:
    """``id`` if it could be a rollout's or an operation's. Raises `BadInput`."""
    if not re.fullmatch(r"[!-~]{1,128}", id):
        raise BadInput("an id has 1 to 128 printable ASCII characters")
    return id


async def running(control: Control, model: object) -> RolloutView | None:
    """The rollout of ``model`` that runs, if one does."""
    known = await control.rollouts(model if isinstance(model, str) else None)
    return next((view for view in known if not view.final), None)
