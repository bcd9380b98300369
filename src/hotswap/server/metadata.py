"""What the data plane tells of itself and of its models (all synchronous, none on a hot path)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hotswap.core.routing import RouteTable, VersionEntry, choose
from hotswap.core.signature import TensorSpec
from hotswap.core.stats import ModelStats
from hotswap.errors import BadInput, NotFound
from hotswap.server.bodies import decode_json
from hotswap.server.calls import check_type
from hotswap.server.errors import error_body
from hotswap.server.messages import JSON_TYPE, Answer, Request
from hotswap.server.openapi import document, server_version
from hotswap.server.routes import Match
from hotswap.server.tensors import show

if TYPE_CHECKING:
    from hotswap.server.app import DataApp

#: The protocol's extensions that this server has.
EXTENSIONS: Final = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
]

_TRITON_TYPES: Final = {"BYTES": "TYPE_STRING"}


def readers(app: DataApp) -> dict[str, Callable[[Request, Match], Answer]]:
    """The handlers of the routes that only read, by the route table's names."""
    reader = _Reader(app)
    return {
        "server_metadata": reader.server,
        "live": reader.live,
        "ready": reader.ready,
        "ping": reader.ready,
        "model_metadata": reader.model,
        "model_ready": reader.model_ready,
        "stats": reader.stats,
        "config": reader.config,
        "index": reader.index,
        "document": reader.document,
    }


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, (JSON_TYPE,), msgspec.json.encode(value))


class _Reader:
    def __init__(self, app: DataApp) -> None:
        self._app = app
        self._plane = app.plane

    def server(self, request: Request, match: Match) -> Answer:
        return _json({"name": "hotswap", "version": server_version(), "extensions": EXTENSIONS})

    def live(self, request: Request, match: Match) -> Answer:
        return _json({"live": True})

    def ready(self, request: Request, match: Match) -> Answer:
        if self._app.draining:
            return _not_ready("The server is draining.")
        if not self._plane.ready():
            return _not_ready("The server is not ready: no model can answer yet.")
        return _json({"ready": True})

    def _entries(self, match: Match) -> tuple[RouteTable, list[VersionEntry]]:
        table = self._plane.table(match.model or "")
        if match.version is None:
            return table, list(table.versions)
        entry = table.version(match.version)
        if entry is None:
            raise NotFound(f"The model {table.model} has no version {show(match.version)}.")
        return table, [entry]

    def _answering(self, table: RouteTable, match: Match) -> VersionEntry | None:
        return choose(table) if match.version is None else table.version(match.version)

    def model(self, request: Request, match: Match) -> Answer:
        table, entries = self._entries(match)
        chosen = self._answering(table, match)
        signature = table.signature
        return _json(
            {
                "name": table.model,
                "versions": [entry.version for entry in entries],
                "platform": chosen.platform if chosen else "",
                "inputs": [_tensor(spec) for spec in signature.inputs] if signature else [],
                "outputs": [_tensor(spec) for spec in signature.outputs] if signature else [],
            }
        )

    def model_ready(self, request: Request, match: Match) -> Answer:
        table, _ = self._entries(match)
        chosen = self._answering(table, match)
        if chosen is not None and chosen.state == "READY":
            return _json({"name": table.model, "ready": True})
        if chosen is None:
            reason = f"The model {table.model} has no active version."
        else:
            reason = chosen.reason or f"Version {chosen.version} is {chosen.state.lower()}."
        answer = _not_ready(reason)
        answer.body = msgspec.json.encode({"name": table.model, "ready": False, "error": reason})
        return answer

    def stats(self, request: Request, match: Match) -> Answer:
        model, version = match.model, match.version
        if model is not None:
            self._entries(match)
        rows = [
            _statistics(stats)
            for stats in self._plane.stats()
            if model in (None, stats.model) and version in (None, stats.version)
        ]
        # The counters are read where all workers write them, so they are never old, whether or
        # not control lives.
        return _json({"model_stats": rows, "age_ms": 0})

    def config(self, request: Request, match: Match) -> Answer:
        table, entries = self._entries(match)
        chosen = self._answering(table, match) or (entries[0] if entries else None)
        signature = table.signature
        return _json(
            {
                "name": table.model,
                "platform": chosen.platform if chosen else "",
                "backend": chosen.runtime if chosen else "",
                "max_batch_size": chosen.batch_rows if chosen else 0,
                "input": [_config_tensor(spec) for spec in signature.inputs] if signature else [],
                "output": [_config_tensor(spec) for spec in signature.outputs] if signature else [],
                "version_policy": {"specific": {"versions": [entry.version for entry in entries]}},
            }
        )

    def index(self, request: Request, match: Match) -> Answer:
        only_ready = False
        if request.body.strip():
            check_type(request.headers.get(b"content-type"), ("application/json",))
            body = decode_json(request.body, self._app.limits)
            if not isinstance(body, dict) or not isinstance(body.get("ready", False), bool):
                raise BadInput(
                    'The body must be a JSON object with "ready" true or false, or empty.'
                )
            only_ready = body.get("ready", False)
        rows = [
            {"name": name, "version": entry.version, "state": entry.state, "reason": entry.reason}
            for name in self._plane.models()
            for entry in self._plane.table(name).versions
            if entry.state == "READY" or not only_ready
        ]
        return _json(rows)

    def document(self, request: Request, match: Match) -> Answer:
        return _json(document())


def _not_ready(reason: str) -> Answer:
    return Answer(503, (JSON_TYPE, (b"retry-after", b"1")), error_body(reason))


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _config_tensor(spec: TensorSpec) -> dict[str, Any]:
    data_type = _TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
    return {"name": spec.name, "data_type": data_type, "dims": list(spec.shape[1:])}


def _statistics(stats: ModelStats) -> dict[str, Any]:
    failed = sum(stats.errors.values())

    def pair(count: int, ns: int) -> dict[str, int]:
        return {"count": count, "ns": ns}

    return {
        "name": stats.model,
        "version": stats.version,
        "role": stats.role,
        "last_inference": stats.last_inference,
        "inference_count": stats.inferences,
        "execution_count": stats.executions,
        "inference_stats": {
            "success": pair(stats.success, stats.success_ns),
            "fail": pair(failed, stats.fail_ns),
            "queue": pair(stats.executions, stats.queue_ns),
            "compute_input": pair(0, 0),
            "compute_infer": pair(stats.executions, stats.compute_ns),
            "compute_output": pair(0, 0),
            "cache_hit": pair(0, 0),
            "cache_miss": pair(0, 0),
        },
        "batch_stats": [],
        "errors": stats.errors,
        "inflight": stats.inflight,
    }
