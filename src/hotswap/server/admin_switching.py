"""Routes of ``/api/v1/model-switching``: the same service, with switches and rollouts as one."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Body, Depends, Request, Response

from hotswap.control.interface import Control
from hotswap.core.naming import check_name
from hotswap.core.rollout_views import RolloutView
from hotswap.core.strategy import DEFAULT_GUARDRAILS, DEFAULTS, RolloutSpec
from hotswap.core.views import ModelView, OperationView, VersionView
from hotswap.errors import BadInput, HotswapError, NotFound
from hotswap.server import admin_models
from hotswap.server.admin_replies import (
    Models,
    Refused,
    Removed,
    answers,
    content,
    control_of,
    refused,
    reply,
)
from hotswap.server.admin_rollout_bodies import NOTHING_ELSE, WHO, CommandBody, spelled
from hotswap.server.admin_rollouts import check_id, running
from hotswap.server.admin_switching_bodies import NamedRegisterBody, SwitchRequest, wanted
from hotswap.server.admin_switching_replies import (
    Alerts,
    Conditions,
    ModelCondition,
    RefusedOperation,
    RolloutCounts,
    SwitchingConfig,
    SwitchingStats,
    SwitchOperation,
    SwitchOperations,
    alerts_of,
    condition,
    merged,
    of_operation,
    of_rollout,
    of_switch,
    request_counts,
)
from hotswap.server.errors import status_of

router = APIRouter(prefix="/api/v1/model-switching", tags=["model switching"])
Service = Annotated[Control, Depends(control_of)]

_UNCHANGED: Final = "Not possible in the present state, which comes along."


def _name(name: str) -> str:
    return f"switching_{name}"


@router.post(
    "/models",
    status_code=201,
    name=_name("register_model"),
    responses=answers(VersionView, 400, 404, 408, 409, 413, 415, 503, 507, status=201),
)
async def register_model(body: NamedRegisterBody, request: Request, control: Service) -> Response:
    """Register a version of a model: its files are hashed and copied. It gets no traffic."""
    model = body.model or body.model_id or ""
    return await admin_models.register_version(model, body, request, control)


@router.get("/models", name=_name("list_models"), responses=answers(Models, 503))
async def list_models(control: Service) -> Response:
    """Every model with its versions."""
    return reply(Models(await control.models()))


@router.get("/models/{id}", name=_name("show_model"), responses=answers(ModelView, 400, 404, 503))
async def show_model(id: str, control: Service) -> Response:
    """One model with its versions."""
    check_name("model", id)
    return reply(await control.model(id))


@router.delete(
    "/models/{id}/versions/{version}",
    name=_name("remove_version"),
    responses=answers(Removed, 400, 404, 409, 503),
)
async def remove_version(id: str, version: str, control: Service) -> Response:
    """Remove a version; 409 while it has traffic or is the rollback target."""
    return await admin_models.remove_version(id, version, control)


@router.post(
    "/switch",
    name=_name("switch"),
    responses=answers(SwitchOperation, 400, 404, 408, 413, 415, 503, 507)
    | {
        202: {"description": "A rollout was started.", "content": content(SwitchOperation)},
        409: {"description": _UNCHANGED, "content": content(Refused)},
    },
)
async def switch(body: SwitchRequest, control: Service) -> Response:
    """Switch at once (200, when flipped), or start a rollout (202), whose id the operation has."""
    want = wanted(body)
    model = want.model
    try:
        if model is None:
            model = await _only_model(control)
        if want.plain:
            key = want.more.get("idempotency_key")
            force = want.more.get("force", False)
            done = await control.switch(model, want.version, force=force, idempotency_key=key)
            return reply(of_switch(done, model))
        start = {**want.more, "model": model, "version": want.version, "strategy": want.strategy}
        if want.config is not None:
            start["config"] = want.config
        view = await control.start_rollout(start, who=WHO)
    except HotswapError as error:
        return await refused(error, lambda: running(control, model))
    return reply(of_rollout(view), 202)


async def _only_model(control: Control) -> str:
    names = [model.name for model in await control.models()]
    if len(names) != 1:
        raise BadInput(f"say which model: there are {len(names)}")
    return names[0]


@router.get(
    "/switch/operations", name=_name("list_operations"), responses=answers(SwitchOperations, 503)
)
async def list_operations(control: Service) -> Response:
    """Switches, rollbacks and rollouts, newest first."""
    return reply(SwitchOperations(merged(await control.operations(), await control.rollouts())))


@router.get(
    "/switch/operations/{operation}",
    name=_name("show_operation"),
    responses=answers(SwitchOperation, 400, 404, 503),
)
async def show_operation(operation: str, control: Service) -> Response:
    """One switch, rollback or rollout."""
    return reply(_shape(await _find(control, check_id(operation))))


@router.post(
    "/switch/operations/{operation}/abort",
    name=_name("abort_operation"),
    responses=answers(SwitchOperation, 400, 404, 408, 413, 415, 503)
    | {409: {"description": _UNCHANGED, "content": content(RefusedOperation)}},
)
async def abort_operation(
    operation: str, control: Service, body: Annotated[CommandBody | None, Body()] = None
) -> Response:
    """Give up a switch that is still preparing, or a rollout. Only rollouts take a body."""
    found = await _find(control, check_id(operation))
    try:
        if isinstance(found, OperationView):
            if body is not None and body.model_fields_set:
                raise BadInput(f"'{operation}' is no rollout: abort it without a body")
            return reply(of_operation(await control.abort_operation(operation)))
        given = body or NOTHING_ELSE
        view = await control.command_rollout(
            operation,
            "abort",
            generation=given.generation,
            idempotency_key=given.idempotency_key,
            force=given.force,
            why=given.why,
            who=WHO,
        )
    except HotswapError as error:
        if status_of(error) != 409:
            raise
        now = _shape(await _find(control, operation))
        return reply(RefusedOperation(error.message, now), 409)
    return reply(of_rollout(view))


async def _find(control: Control, id: str) -> RolloutView | OperationView:
    """The rollout, switch or rollback of that id. Raises `NotFound`."""
    try:
        return await control.rollout(id)
    except NotFound:
        operation = await control.operation(id)
    if operation.kind not in ("switch", "rollback"):
        raise NotFound(f"operation '{id}' is no switch: see /api/v1/operations/{id}")
    return operation


def _shape(found: RolloutView | OperationView) -> SwitchOperation:
    return of_operation(found) if isinstance(found, OperationView) else of_rollout(found)


@router.get("/health/models", name=_name("list_health"), responses=answers(Conditions, 503))
async def list_health(control: Service) -> Response:
    """Each model's health, and what became of its requests."""
    stats = control.stats()
    return reply(Conditions([condition(model, stats) for model in await control.models()]))


@router.get(
    "/health/models/{id}",
    name=_name("show_health"),
    responses=answers(ModelCondition, 400, 404, 503),
)
async def show_health(id: str, control: Service) -> Response:
    """One model's health, and what became of its requests."""
    check_name("model", id)
    return reply(condition(await control.model(id), control.stats()))


@router.get("/alerts", name=_name("list_alerts"), responses=answers(Alerts, 503))
async def list_alerts(control: Service) -> Response:
    """What a person should know: rollbacks, rollouts that wait for somebody, drift, and alarms."""
    return reply(
        Alerts(alerts_of(control.recent_events(), await control.rollouts(), control.drift_gauges()))
    )


@router.get("/config", name=_name("show_config"), responses=answers(SwitchingConfig))
async def show_config(control: Service) -> Response:
    """The defaults of strategies and rollouts, and where the server listens and keeps things."""
    strategies = {name: spelled(config) for name, config in DEFAULTS.items()}
    fields = msgspec.structs.fields(RolloutSpec)
    rollout: dict[str, Any] = {field.name: field.default for field in fields if not field.required}
    rollout["guardrails"] = [
        {
            "max" if key == "maximum" else key: value
            for key, value in msgspec.to_builtins(guardrail).items()
            if value not in (None, "")
        }
        for guardrail in DEFAULT_GUARDRAILS
    ]
    info = control.info()
    rollout |= info.get("rollout_defaults", {})
    shown = ("version", "data", "control", "models", "store")
    return reply(
        SwitchingConfig(strategies, rollout, {name: info[name] for name in shown if name in info})
    )


@router.get("/stats", name=_name("show_stats"), responses=answers(SwitchingStats, 503))
async def show_stats(control: Service) -> Response:
    """How many switches and rollouts there were, how they went, and who answered what."""
    switches: dict[str, dict[str, int]] = {}
    for (model, result), count in control.switch_counters().items():
        switches.setdefault(model, {})[result] = count
    seconds = {m: total / count for m, (count, total) in control.switch_seconds().items() if count}
    rollouts = await control.rollouts()
    counts = RolloutCounts(
        dict(Counter(view.phase for view in rollouts)),
        dict(Counter(view.reason for view in rollouts if view.reason)),
    )
    return reply(SwitchingStats(switches, seconds, counts, request_counts(control.stats())))
