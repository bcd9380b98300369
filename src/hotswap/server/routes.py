"""The data plane's routes: one table, for the router and for the API document."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from hotswap.errors import MethodNotAllowed, NotFound

_CACHED_PATHS: Final = 1024
_TEMPLATE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``template`` has ``{model}``, ``{version}`` or ``{name}`` for one path segment.

    ``open``: needs no token. ``body`` / ``answer``: what the API document calls them.
    """

    method: str
    template: str
    handler: str
    summary: str
    open: bool = False
    body: str = ""
    answer: str = ""
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = "".join(
            f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part)
            for at, part in enumerate(_TEMPLATE.split(self.template))
        )
        object.__setattr__(self, "pattern", re.compile(pattern))

    def parameters(self) -> list[str]:
        """The names in the template, in order."""
        return _TEMPLATE.findall(self.template)


def _both(
    method: str, rest: str, handler: str, summary: str, body: str = "", answer: str = ""
) -> tuple[Route, Route]:
    """A route of a model, and of one of its versions."""
    return (
        Route(method, "/v2/models/{model}" + rest, handler, summary, body=body, answer=answer),
        Route(
            method,
            "/v2/models/{model}/versions/{version}" + rest,
            handler,
            f"{summary}, of one version",
            body=body,
            answer=answer,
        ),
    )


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/v2", "server_metadata", "The server and its extensions", answer="Server"),
    Route("GET", "/v2/health/live", "live", "Whether the process runs", open=True, answer="Live"),
    Route(
        "GET", "/v2/health/ready", "ready", "Whether to send requests", open=True, answer="Ready"
    ),
    Route("GET", "/v2/models/stats", "stats", "Statistics of every model", answer="Stats"),
    *_both("GET", "", "model_metadata", "A model's inputs and outputs", answer="Model"),
    *_both("GET", "/ready", "model_ready", "Whether a model is ready", answer="ModelReady"),
    *_both("GET", "/stats", "stats", "A model's statistics", answer="Stats"),
    *_both("GET", "/config", "config", "A model's configuration", answer="Config"),
    *_both("POST", "/infer", "infer", "Predict", body="InferRequest", answer="InferResponse"),
    Route(
        "POST",
        "/v2/repository/index",
        "index",
        "Models and versions with their states",
        body="IndexRequest",
        answer="Index",
    ),
    Route(
        "POST", "/predict", "predict", "Predict from features", body="Predict", answer="Prediction"
    ),
    Route(
        "POST",
        "/api/v1/predictions",
        "predict_stable",
        "Predict from features, by the stable version",
        body="Predict",
        answer="Prediction",
    ),
    Route(
        "POST",
        "/api/v1/ab/predictions",
        "predict_split",
        "Predict from features, through the running test",
        body="Predict",
        answer="Prediction",
    ),
    Route(
        "POST",
        "/api/v1/models/{name}/predictions",
        "predict_named",
        "Predict from features, by a model, by an arm (a, b) of the only running test, or by a "
        "version of the only model",
        body="Predict",
        answer="Prediction",
    ),
    Route(
        "POST",
        "/invocations",
        "invocations",
        "Predict in MLflow's formats",
        body="Invocations",
        answer="Predictions",
    ),
    Route(
        "POST",
        "/feedback",
        "feedback",
        "Labels or rewards of earlier predictions",
        body="Feedback",
        answer="Accepted",
    ),
    Route("GET", "/ping", "ping", "Whether to send requests", open=True, answer="Ready"),
    Route("GET", "/openapi.json", "document", "This document", answer="Document"),
)


class Match:
    """A path's route and what its segments say (None where it has no such segment)."""

    __slots__ = ("model", "name", "route", "version")

    def __init__(self, route: Route, found: dict[str, str]) -> None:
        self.route = route
        self.model = found.get("model")
        self.version = found.get("version")
        self.name = found.get("name")


class Router:
    """Finds a request's route. Paths seen before are one dictionary look-up."""

    __slots__ = ("_known", "_literal", "_patterns")

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._literal = {
            (route.method, route.template): Match(route, {})
            for route in routes
            if not route.parameters()
        }
        self._patterns = [route for route in routes if route.parameters()]
        self._known: dict[tuple[str, str], Match] = {}

    def match(self, method: str, path: str) -> Match:
        """The route. Raises `NotFound`, or `MethodNotAllowed` naming the methods there are."""
        found = self._known.get((method, path))
        return found if found is not None else self._search(method, path)

    def _search(self, method: str, path: str) -> Match:
        wanted = "GET" if method == "HEAD" else method
        plain = path.rstrip("/") or "/"
        allowed: list[str] = []
        found: Match | None = None
        for (its_method, template), match in self._literal.items():
            if template == plain:
                allowed.append(its_method)
                if its_method == wanted:
                    found = match
        for route in self._patterns if found is None else ():
            segments = route.pattern.fullmatch(plain)
            if segments is not None and (plain != "/v2/models/stats" or route.method != "GET"):
                allowed.append(route.method)
                if route.method == wanted:
                    found = Match(route, segments.groupdict())
                    break
        if found is None:
            if allowed:
                methods = ", ".join(sorted(set(allowed)))
                raise MethodNotAllowed(f"This route takes {methods}, not {method[:20]}.")
            raise NotFound("There is no such route: /openapi.json lists those there are.")
        if len(self._known) >= _CACHED_PATHS:
            # Names that nobody serves also match: they must not fill the memory.
            self._known.clear()
        self._known[(method, path)] = found
        return found
