"""Routes for models, their versions, switches and operations."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from hotswap.control.interface import Control
from hotswap.core.naming import check_name
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView
from hotswap.errors import BadInput, NotFound
from hotswap.server.admin_bodies import RegisterBody, RollbackBody, SwitchBody
from hotswap.server.admin_replies import Models, Operations, Removed, answers, control_of, reply

router = APIRouter(prefix="/api/v1")
Service = Annotated[Control, Depends(control_of)]

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._ -]{0,63}")


def _who(request: Request) -> str:
    """Whom the journal names: the address, and the name that the client claims, if any."""
    address = request.client.host if request.client else "local"
    claimed = request.headers.get("x-hotswap-user", "")
    return f"{claimed} ({address})" if _USER.fullmatch(claimed) else address


def _check(model: str, version: str | None = None) -> None:
    check_name("model", model)
    if version is not None:
        check_name("version", version)


@router.get("/models", tags=["models"], responses=answers(Models, 503))
async def list_models(control: Service) -> Response:
    """Every model with its versions: which is active, what is loaded, what is wrong."""
    return reply(Models(await control.models()))


@router.get("/models/{model}", tags=["models"], responses=answers(ModelView, 400, 404, 503))
async def show_model(model: str, control: Service) -> Response:
    """One model: its signature and its versions."""
    _check(model)
    return reply(await control.model(model))


@router.delete("/models/{model}", tags=["models"], responses=answers(Removed, 400, 404, 409, 503))
async def remove_model(model: str, control: Service, force: bool = False) -> Response:
    """Remove a model and its versions; 409 while one is active, unless ``force`` takes it out of service."""
    _check(model)
    await control.remove_model(model, force=force)
    return reply(Removed(model))


@router.post(
    "/models/{model}/versions",
    status_code=201,
    tags=["versions"],
    responses=answers(VersionView, 400, 404, 408, 409, 413, 415, 503, 507, status=201),
)
async def register_version(
    model: str, body: RegisterBody, request: Request, control: Service
) -> Response:
    """Register a version: its files are hashed and copied. It gets no traffic."""
    _check(model)
    version = await control.register(
        model,
        body.uri,
        version=body.version,
        runtime=body.runtime,
        metadata=body.metadata,
        changelog=body.changelog,
        in_place=body.in_place,
        compile=body.compile,
        who=_who(request),
    )
    return reply(version, 201, {"location": f"/api/v1/models/{model}/versions/{version.version}"})


@router.get(
    "/models/{model}/versions/{version}",
    tags=["versions"],
    responses=answers(VersionView, 400, 404, 503),
)
async def show_version(model: str, version: str, control: Service) -> Response:
    """One version."""
    _check(model, version)
    return reply(find_version(await control.model(model), version))


@router.delete(
    "/models/{model}/versions/{version}",
    tags=["versions"],
    responses=answers(Removed, 400, 404, 409, 503),
)
async def remove_version(model: str, version: str, control: Service) -> Response:
    """Remove a version; 409 while it has traffic or is the rollback target."""
    _check(model, version)
    await control.remove_version(model, version)
    return reply(Removed(model, version))


@router.post(
    "/models/{model}/versions/{version}/load",
    tags=["versions"],
    responses=answers(OperationView, 400, 404, 409, 503, 507),
)
async def load_version(model: str, version: str, control: Service) -> Response:
    """Load a version, check it and warm it, without traffic. Answers when it is warm."""
    _check(model, version)
    return reply(await control.load(model, version))


@router.post(
    "/models/{model}/versions/{version}/unload",
    tags=["versions"],
    responses=answers(OperationView, 400, 404, 409, 503),
)
async def unload_version(model: str, version: str, control: Service) -> Response:
    """Release a loaded version's processes; 409 while it has traffic."""
    _check(model, version)
    return reply(await control.unload(model, version))


@router.post(
    "/models/{model}/switch",
    tags=["switching"],
    responses=answers(SwitchView, 400, 404, 408, 409, 413, 415, 503, 507),
)
async def switch(model: str, body: SwitchBody, control: Service) -> Response:
    """Give all of a model's traffic to a version, at once. Answers when that has happened."""
    _check(model)
    return reply(
        await control.switch(
            model, body.version, force=body.force, idempotency_key=body.idempotency_key
        )
    )


@router.post(
    "/models/{model}/rollback",
    tags=["switching"],
    responses=answers(SwitchView, 400, 404, 408, 409, 413, 415, 503, 507),
)
async def rollback(
    model: str, control: Service, body: Annotated[RollbackBody | None, Body()] = None
) -> Response:
    """Give the traffic back to the previous version; 409 if there is none to return to."""
    _check(model)
    key = body.idempotency_key if body is not None else None
    return reply(await control.rollback(model, idempotency_key=key))


@router.get("/operations", tags=["operations"], responses=answers(Operations, 503))
async def list_operations(control: Service) -> Response:
    """Switches and loads, newest first, with their state and reason."""
    return reply(Operations(await control.operations()))


@router.get(
    "/operations/{id}", tags=["operations"], responses=answers(OperationView, 400, 404, 503)
)
async def show_operation(id: str, control: Service) -> Response:
    """One switch or load."""
    if not re.fullmatch(r"[!-~]{1,128}", id):
        raise BadInput("an operation's id has 1 to 128 printable ASCII characters")
    return reply(await control.operation(id))


def find_version(model: ModelView, version: str) -> VersionView:
    """The version of that id. Raises `NotFound` naming those there are."""
    for view in model.versions:
        if view.version == version:
            return view
    names = ", ".join(view.version for view in model.versions[-10:]) or "none"
    raise NotFound(f"model '{model.name}' has no version '{version}'; it has: {names}")
