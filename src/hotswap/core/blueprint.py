"""What ``hotswap.yaml`` wants: models, their versions, who is stable, what is rolled out. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotswap.core.durations import LONGEST
from hotswap.core.fields import count, flag, number
from hotswap.core.naming import check_name
from hotswap.core.strategy import parse as parse_rollout
from hotswap.errors import BadInput

MODEL_KEYS: Final = ("versions", "stable", "rollout", "gate")
VERSION_KEYS: Final = ("uri", "runtime", "metadata", "changelog", "in_place", "compile")
GATE_KEYS: Final = ("samples", "max_latency_ms", "max_memory_mb", "replay")
REPLAY_KEYS: Final = ("since", "max_rows", "min_rows", "max_disagreement", "max_errors")

_SINCE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(s|min|m|h|d)")
_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class WantedVersion(msgspec.Struct, frozen=True):
    """One version: the body of its registration. ``uri`` None: the server has it already."""

    uri: str | None = None
    runtime: str | None = None
    metadata: dict[str, Any] = {}
    changelog: str = ""
    in_place: bool = False
    compile: str | None = None


class Replay(msgspec.Struct, frozen=True):
    """A candidate over recorded traffic. ``max_disagreement``: share of the requests, 0 to 1, on
    which it may answer otherwise than was answered; None: any.
    """

    since_seconds: float | None = None
    max_rows: int | None = None
    min_rows: int = 1
    max_disagreement: float | None = None
    max_errors: int = 0


class Gate(msgspec.Struct, frozen=True):
    """What a version must show before its rollout begins.

    ``samples``: it must bring sample rows of its own. ``max_latency_ms``: of one row, as it was
    measured when it was loaded; ``max_memory_mb``: of one of its processes (MiB).
    """

    samples: bool = False
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    replay: Replay | None = None


class WantedModel(msgspec.Struct, frozen=True):
    """One model. ``stable``: who answers where no rollout decides. ``rollout``: the body of a
    start without ``model``. ``gate`` None: only what a server always checks.
    """

    versions: dict[str, WantedVersion] = {}
    stable: str | None = None
    rollout: dict[str, Any] | None = None
    gate: Gate | None = None


class Blueprint(msgspec.Struct, frozen=True):
    """All that the file names, by model."""

    models: dict[str, WantedModel]


def parse(raw: object) -> Blueprint:
    """Plain values, as YAML gives them. Raises `BadInput` naming the place in the file.

    >>> parse({"models": {"m": {"versions": {"v1": {"uri": "/m/v1"}}}}}).models["m"].stable
    >>> parse({"model": {}})
    Traceback (most recent call last):
    hotswap.errors.BadInput: the file has an unknown key 'model': it takes models
    """
    top = _mapping("the file", raw, ("models",))
    models = _mapping("models", top.get("models"))
    if not models:
        raise BadInput("the file names no model: begin with 'models:' and a model's name below it")
    return Blueprint(
        {_named("model", "models", n): _model(f"models.{n}", n, models[n]) for n in models}
    )


def key_of(model: str, body: Mapping[str, Any]) -> str:
    """The idempotency key of a rollout: one for each model, version and body.

    >>> key_of("m", {"version": "v2"}) == key_of("m", {"version": "v2", "strategy": "canary"})
    False
    """
    text = json.dumps({**body, "model": model}, sort_keys=True, separators=(",", ":"))
    return "plan-" + hashlib.sha256(text.encode()).hexdigest()[:40]


def _model(where: str, name: str, raw: object) -> WantedModel:
    fields = _mapping(where, raw, MODEL_KEYS)
    given = _mapping(f"{where}.versions", fields.get("versions"))
    versions = {
        _named("version", f"{where}.versions", v): _version(f"{where}.versions.{v}", given[v])
        for v in given
    }
    stable = fields.get("stable")
    if stable is not None:
        stable = _named("version", f"{where}.stable", stable)
    rollout = fields.get("rollout")
    if rollout is not None:
        rollout = _rollout(f"{where}.rollout", name, rollout)
        if rollout["version"] == stable:
            raise BadInput(
                f"{where}.rollout names {stable}, which is stable too: a rollout begins beside another "
                "version, and is left out of the file once it was promoted"
            )
    gate = _gate(f"{where}.gate", fields["gate"]) if fields.get("gate") is not None else None
    if gate is not None and rollout is None:
        raise BadInput(
            f"{where}.gate guards a rollout, and there is none: add one, or leave it out"
        )
    return WantedModel(versions, stable, rollout, gate)


def _version(where: str, raw: object) -> WantedVersion:
    fields = _mapping(where, raw, VERSION_KEYS)
    texts = {name: _text(f"{where}.{name}", fields.get(name)) for name in ("uri", "runtime")}
    uri = texts["uri"]
    if uri is None and fields:
        raise BadInput(
            f"{where} gives {next(iter(fields))} and no uri, so it could not register it"
        )
    if uri is not None and "${" in uri:
        raise BadInput(f"{where}.uri holds '${{', and variables are not filled in: write it out")
    convert = _text(f"{where}.compile", fields.get("compile"))
    if convert not in (None, "onnx"):
        raise BadInput(f"{where}.compile must be onnx, or be left out")
    return WantedVersion(
        uri=uri,
        runtime=texts["runtime"],
        metadata=_json(f"{where}.metadata", _mapping(f"{where}.metadata", fields.get("metadata"))),
        changelog=_text(f"{where}.changelog", fields.get("changelog")) or "",
        in_place=flag(f"{where}.in_place", fields.get("in_place", False)),
        compile=convert,
    )


def _rollout(where: str, model: str, raw: object) -> dict[str, Any]:
    body = _json(where, _mapping(where, raw))
    for name, why in (
        ("model", "it stands in the model's section"),
        ("idempotency_key", "'apply' makes it from the model and the body"),
    ):
        if name in body:
            raise BadInput(f"{where}.{name} cannot be given: {why}")
    try:
        parse_rollout({**body, "model": model})
    except BadInput as problem:
        raise BadInput(f"{where}: {problem.message.replace('the body has', 'it has')}") from None
    return body


def _gate(where: str, raw: object) -> Gate:
    fields = _mapping(where, raw, GATE_KEYS)
    limits = {
        name: number(f"{where}.{name}", fields[name], low=1e-3, high=1e9)
        for name in ("max_latency_ms", "max_memory_mb")
        if fields.get(name) is not None
    }
    replay = fields.get("replay")
    return Gate(
        samples=flag(f"{where}.samples", fields.get("samples", False)),
        replay=None if replay is None else _replay(f"{where}.replay", replay),
        **limits,
    )


def _replay(where: str, raw: object) -> Replay:
    fields = _mapping(where, raw, REPLAY_KEYS)
    since, most, share = (fields.get(n) for n in ("since", "max_rows", "max_disagreement"))
    return Replay(
        since_seconds=None if since is None else _since(f"{where}.since", since),
        max_rows=None if most is None else count(f"{where}.max_rows", most, least=1),
        min_rows=count(f"{where}.min_rows", fields.get("min_rows", 1), least=1),
        max_disagreement=None
        if share is None
        else number(f"{where}.max_disagreement", share, low=0.0, high=1.0),
        max_errors=count(f"{where}.max_errors", fields.get("max_errors", 0)),
    )


def _since(where: str, value: object) -> float:
    """``7d``, ``12h``, ``90 min`` or seconds."""
    seconds = -1.0
    if isinstance(value, str) and (match := _SINCE.fullmatch(value.strip())):
        seconds = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if not 0 < seconds <= LONGEST:
        raise BadInput(f"{where} must be a time such as 7d, 12h or 90min, a year at most")
    return seconds


def _mapping(where: str, raw: object, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nothing is an empty one. ``known``: the keys that there may be; () for any."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise BadInput(f"{where} must be a mapping of keys to values, not {_kind(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise BadInput(f"{where}: the key {key!r} is {_kind(key)}: write it in quotes")
        if known and key not in known:
            raise BadInput(f"{where} has an unknown key {key[:60]!r}: it takes {', '.join(known)}")
    return dict(raw)


def _named(kind: str, where: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{where}: the {kind} {value!r} is {_kind(value)}: write it in quotes")
    try:
        return check_name(kind, value)
    except BadInput as problem:
        raise BadInput(f"{where}: {problem.message}") from None


def _text(where: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and "\0" not in value):
        return value
    what = "empty text" if isinstance(value, str) else _kind(value)
    raise BadInput(f"{where} must be text, not {what}")


def _json(where: str, value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the server could not be sent: dates, sets, infinities, endless nesting."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise BadInput(
            f"{where} holds what JSON cannot: use text, numbers, lists and keys"
        ) from None
    plain: dict[str, Any] = json.loads(text)
    return plain


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a mapping")
