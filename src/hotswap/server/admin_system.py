"""Health, metrics, information, and the offline API pages."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse

from hotswap.control.interface import Control
from hotswap.core.views import ModelView
from hotswap.errors import HotswapError, NotFound
from hotswap.server import metrics
from hotswap.server.admin_page import CSP as PAGE_CSP
from hotswap.server.admin_page import status_page
from hotswap.server.admin_replies import Live, Ready, answers, control_of, reply
from hotswap.server.openapi import document

log = logging.getLogger("hotswap.server")
router = APIRouter()
Service = Annotated[Control, Depends(control_of)]

ASSETS: Final = files("hotswap.server") / "assets"
DOCS_CSP: Final = (
    # Swagger UI writes style attributes and draws its icons from data: URLs.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES: Final = {
    "docs.js": ("docs.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui-standalone-preset.js": (
        "swagger-ui/swagger-ui-standalone-preset.js",
        "text/javascript",
    ),
}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["health"], responses=answers(Live))
async def live() -> Response:
    """Answers while this process runs. Needs no token."""
    return reply(Live(live=True))


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", tags=["health"], responses=answers(Ready, 503))
async def ready(control: Service) -> Response:
    """Whether this node may be sent requests; 503 with the reason if not. Needs no token."""
    answer, reason = control.ready()
    if answer:
        return reply(Ready(ready=True))
    return reply(Ready(ready=False, error=reason or "not ready"), 503, {"retry-after": "1"})


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
async def prometheus(control: Service) -> Response:
    """Metrics in the Prometheus text format."""
    models: list[ModelView] = []
    try:
        models = await control.models()
    except HotswapError as error:
        # The counters are worth most when something is broken, such as the store.
        log.warning("metrics without the list of models: %s", error)
    text = metrics.render(
        models,
        control.stats(),
        control.switch_counters(),
        control.switch_seconds(),
        control.rollout_gauges(),
        control.rollout_counters(),
        control.drift_gauges(),
        control.record_counts(),
    )
    return Response(text, headers={"content-type": metrics.CONTENT_TYPE})


@router.get(
    "/api/v1/info",
    tags=["health"],
    responses={
        200: {
            "description": "Addresses (`data`, `control`), version, process ids, uptime, "
            "`records`: whether and where they are kept, and what is wrong with that.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def info(control: Service) -> Response:
    """Where this server listens, and what it is."""
    return Response(msgspec.json.encode(control.info()), media_type="application/json")


@router.get("/", include_in_schema=False)
async def page(control: Service) -> Response:
    """The status page, for people."""
    answer, reason = control.ready()
    error = ""
    models: list[ModelView] = []
    try:
        models = await control.models()
    except HotswapError as problem:
        error = problem.message
    running = [view for view in control.rollout_gauges() if not view.final]
    drifts = control.drift_gauges()
    html = status_page(models, control.info(), "" if answer else reason, error, running, drifts)
    return Response(html, media_type="text/html", headers={"content-security-policy": PAGE_CSP})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The API pages; they need no network."""
    html = (ASSETS / "docs.html").read_bytes()
    return Response(html, media_type="text/html", headers={"content-security-policy": DOCS_CSP})


@router.get("/docs/assets/{name}", include_in_schema=False)
async def asset(name: str) -> Response:
    """One of the files that the API pages are made of."""
    if name not in FILES:
        raise NotFound("there is no such file here")
    path, kind = FILES[name]
    return Response(
        ASSETS.joinpath(path).read_bytes(),
        media_type=kind,
        headers={"cache-control": "private, max-age=3600"},
    )


@router.get("/openapi.json", include_in_schema=False)
async def control_document(request: Request) -> Response:
    """The control API's OpenAPI document."""
    content: dict[str, Any] = request.app.openapi()
    return Response(msgspec.json.encode(content), media_type="application/json")


@router.get("/openapi-data.json", include_in_schema=False)
async def data_document() -> Response:
    """The data plane's OpenAPI document."""
    return Response(msgspec.json.encode(document()), media_type="application/json")
