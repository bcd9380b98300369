"""What ``hotswap rollout start`` is given as text, as the body of a start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hotswap.cli.client import CommandFailed

_UNITS = {"s": "seconds", "min": "minutes", "m": "minutes", "h": "hours"}


def read_steps(text: str) -> list[Any]:
    """Steps separated by commas: weights, ``hold=5m``, ``requests=500``, ``approval``, ``shadow=20``.

    A JSON list is taken as it is. Raises `CommandFailed`.

    >>> read_steps("5, hold=5m, 25%, approval, 50")
    [5, {'hold_minutes': 5}, 25, {'approval': True}, 50]
    """
    if text.lstrip().startswith("["):
        steps: list[Any] = _json("--steps", text, list)
        return steps
    return [_step(part.strip()) for part in text.split(",")]


def _step(part: str) -> Any:
    name, given, value = part.partition("=")
    if not given:
        if name == "approval":
            return {"approval": True}
        return _number(part, name.removesuffix("%").strip())
    if name == "hold":
        digits = value.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = _UNITS.get(value[len(digits) :] or "s")
        if unit is None:
            raise _bad_step(part)
        return {f"hold_{unit}": _number(part, digits)}
    if name == "requests":
        return {"requests": _number(part, value)}
    if name == "shadow":
        return {"shadow_percentage": _number(part, value.removesuffix("%"))}
    if name == "weight":
        return {"weight": _number(part, value.removesuffix("%"))}
    raise _bad_step(part)


def _number(part: str, text: str) -> int | float:
    try:
        value = float(text)
    except ValueError:
        raise _bad_step(part) from None
    return int(value) if value.is_integer() else value


def _bad_step(part: str) -> CommandFailed:
    return CommandFailed(
        f"'{part}' is not a step: give a weight in percent, hold=5m, requests=500, approval or "
        "shadow=20, separated by commas"
    )


def read_config(pairs: Sequence[str], file: Path | None) -> dict[str, Any]:
    """The strategy's configuration: ``file``'s (YAML or JSON), then ``key=value`` over it.

    Raises `CommandFailed`.
    """
    config = _file(file) if file is not None else {}
    given: set[str] = set()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise CommandFailed(f"--config '{pair}' is not of the form key=value")
        if key.strip() in given:
            raise CommandFailed(f"--config gives '{key.strip()}' twice")
        given.add(key.strip())
        config[key.strip()] = read_value(value)
    return config


def _file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text("utf-8")
        value = yaml.safe_load(text)  # JSON is YAML
    except OSError as problem:
        raise CommandFailed(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as problem:
        raise CommandFailed(f"{path} is neither YAML nor JSON: {problem}") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CommandFailed(f"{path} must hold the strategy's configuration: keys and values")
    return value


def read_value(text: str) -> Any:
    """``text`` as JSON if it is that, else as it stands.

    >>> read_value("0.05"), read_value("true"), read_value("error_rate"), read_value("NaN")
    (0.05, True, 'error_rate', 'NaN')
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text.strip()


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def read_metric(option: str, text: str) -> dict[str, Any]:
    """``metric:key=value,key=value`` as an object with ``metric``; JSON objects as they are.

    Raises `CommandFailed`. ``option`` names the option, for that.

    >>> read_metric("--guardrail", "latency_p99:max_ratio=1.2,dry_run=true")
    {'metric': 'latency_p99', 'max_ratio': 1.2, 'dry_run': True}
    >>> read_metric("--guardrail", "invalid_rate")
    {'metric': 'invalid_rate'}
    """
    if text.lstrip().startswith("{"):
        given: dict[str, Any] = _json(option, text, dict)
        return given
    metric, _, settings = text.partition(":")
    value: dict[str, Any] = {"metric": metric.strip()}
    if not value["metric"]:
        raise CommandFailed(f"{option} '{text}' names no metric: give METRIC:KEY=VALUE")
    for pair in settings.split(",") if settings.strip() else ():
        key, equals, setting = pair.partition("=")
        key = key.strip()
        if not equals or not key or key in value:
            raise CommandFailed(
                f"{option} '{text}' is not of the form METRIC:KEY=VALUE[,KEY=VALUE]: look at '{pair}'"
            )
        value[key] = read_value(setting)
    return value


def _json(option: str, text: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as problem:
        raise CommandFailed(f"{option} is not valid JSON: {problem}") from None
    if not isinstance(value, kind):
        raise CommandFailed(f"{option} must be a JSON {kind.__name__}")
    return value
