"""The control plane's HTTP application: FastAPI behind the `Guard`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from hotswap.control.interface import Control
from hotswap.errors import BadInput, HotswapError, MethodNotAllowed, NotFound
from hotswap.server import (
    admin_drift,
    admin_events,
    admin_models,
    admin_quality,
    admin_registry,
    admin_replay,
    admin_rollouts,
    admin_simple,
    admin_switching,
    admin_system,
)
from hotswap.server.admin_bodies import sentence
from hotswap.server.admin_events import HEARTBEAT_SECONDS
from hotswap.server.admin_quality import Writer
from hotswap.server.admin_registry import WebhookDoor
from hotswap.server.admin_replies import schemas
from hotswap.server.admin_switching_replies import SWITCHING_REPLIES
from hotswap.server.errors import error_body, translate
from hotswap.server.guard import Guard

DESCRIPTION = """\
Register versions of models, load them, and move live traffic between them: at once, or by
rollouts that decide by evidence.

Every error is `{"error": "<sentence>"}`. Where the server has a token, send
`Authorization: Bearer TOKEN`; `/healthz` and `/readyz` need none.
"""


def create_app(
    control: Control,
    *,
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    heartbeat: float = HEARTBEAT_SECONDS,
    webhook: WebhookDoor | None = None,
    write_report: Writer | None = None,
) -> FastAPI:
    """The application over ``control``.

    ``token`` None: no token is asked for. ``allowed_hosts``: the names and addresses, beside
    loopback, that requests may be addressed to: the address bound (``0.0.0.0`` stands for any
    address) and the operator's own names. ``heartbeat``: after so many seconds without an event
    its stream shows that it lives. ``webhook`` verifies those of the model registry, if they are
    taken. ``write_report`` makes a page or Markdown of a model's report; without it there is JSON.
    """
    app = FastAPI(
        title="hotswap control API",
        version=_release(),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.control = control
    app.state.heartbeat = heartbeat
    app.state.listeners = 0
    app.state.webhook = webhook
    app.state.write_report = write_report
    app.include_router(admin_system.router)
    app.include_router(admin_models.router)
    app.include_router(admin_rollouts.router)
    app.include_router(admin_events.router)
    app.include_router(admin_drift.router)
    app.include_router(admin_quality.router)
    app.include_router(admin_replay.router)
    app.include_router(admin_registry.router)
    app.include_router(admin_switching.router)
    app.include_router(admin_simple.router)
    app.add_middleware(Guard, token=token, allowed_hosts=tuple(allowed_hosts))
    app.add_exception_handler(HotswapError, _translated)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _translated)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    """What generated clients call it: the function's name."""
    return f"admin_{route.name}" if route.path.startswith("/admin/") else route.name


def _release() -> str:
    try:
        return version("hotswap")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def _respond(request: Request, error: Exception, headers: dict[str, str] | None = None) -> Response:
    status, extra, body = translate(error, request.headers.get("x-request-id", ""))
    pairs = {name.decode(): value.decode() for name, value in extra}
    return Response(body, status, pairs | (headers or {}), "application/json")


async def _translated(request: Request, error: Exception) -> Response:
    return _respond(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, BadInput(sentence(error.errors())))


async def _framework(request: Request, error: Exception) -> Response:
    """What FastAPI itself refuses: no such route, or not with that method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _respond(
            request, NotFound(f"there is no route {request.url.path}; /docs lists those there are")
        )
    if error.status_code == 405:
        allowed = headers.get("Allow", "other methods")
        problem = f"{request.url.path} does not take {request.method}, but {allowed}"
        return _respond(request, MethodNotAllowed(problem), headers)
    body = error_body(str(error.detail))
    return Response(body, error.status_code, headers, "application/json")


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: with our schemas, and without 422, which is not used."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    content = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path in content["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    components = content.setdefault("components", {})
    own: dict[str, Any] = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        own.pop(name, None)
    replies = (
        *SWITCHING_REPLIES, *admin_drift.DRIFT_REPLIES, *admin_quality.QUALITY_REPLIES,
        *admin_replay.REPLAY_REPLIES,
    )  # fmt: skip
    own.update(schemas(*replies))
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    content["security"] = [{"token": []}, {}]
    for path in ("/healthz", "/readyz"):
        for operation in content["paths"][path].values():
            operation["security"] = []
    app.openapi_schema = content
    return content
