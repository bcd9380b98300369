"""The settings as options of a command: each field of `Settings` is a flag."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hotswap.config import LIMIT, Settings

TRUST = (
    "trust_code",
    "trust_digests",
    "token",
    "insecure",
    "allowed_hosts",
    "allow_root",
    "allow_uri",
)
LOGS = ("log_level", "log_format", "access_log")


def command(function: Callable[[dict[str, Any]], None], *names: str) -> Callable[..., None]:
    """``function`` as a command with an option for each setting (or for ``names`` alone).

    It is given the flags that were given, by name. The folder of models is an argument.
    """
    fields = {name: Settings.model_fields[name] for name in names or Settings.model_fields}

    def run(**values: Any) -> None:
        function({name: value for name, value in values.items() if value not in (None, [], ())})

    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name, field)
        )
        for name, field in fields.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__ = getattr(function, "__name__", "run")
    run.__doc__ = function.__doc__
    return run


def _annotation(name: str, field: FieldInfo) -> Any:
    """What Typer is told of one setting. Values are checked by `Settings`, which says what is
    wrong in the same words wherever a value comes from.
    """
    text = (field.description or "").replace("[", "\\[")
    kind = _kind(field)
    if name == "models":
        return Annotated[Path | None, typer.Argument(help=text, metavar="MODELS")]
    flag = "--" + name.replace("_", "-")
    default = _default(name, field)
    more: dict[str, Any] = {
        "help": text + default,
        "rich_help_panel": _panel(name),
    }
    if kind is bool:
        return Annotated[bool | None, typer.Option(flag, **more)]
    if kind is tuple:
        return Annotated[list[str] | None, typer.Option(flag, metavar="ITEM", **more)]
    if kind is Path:
        return Annotated[Path | None, typer.Option(flag, metavar="PATH", **more)]
    return Annotated[str | None, typer.Option(flag, metavar=_metavar(kind), **more)]


def _kind(field: FieldInfo) -> Any:
    """The type behind optional and annotated ones."""
    kind = field.annotation
    while get_origin(kind) is not None and get_origin(kind) not in (Literal, tuple):
        kind = next(a for a in get_args(kind) if a is not type(None))
    return tuple if get_origin(kind) is tuple else kind


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "NUMBER", float: "SECONDS"}.get(kind, "TEXT")


def _panel(name: str) -> str:
    if name.startswith(LIMIT):
        return "Limits"
    if name in TRUST:
        return "Trust"
    if name == "tracking_uri" or name.startswith("registry"):
        return "Registry"
    if name.startswith(("records", "drift")):
        return "Records"
    return "Logs" if name in LOGS else "Options"


def _default(name: str, field: FieldInfo) -> str:
    value = field.get_default()
    if value in (None, (), False) or field.default_factory is not None:
        return ""
    return f" \\[default: {value:g}]" if isinstance(value, float) else f" \\[default: {value}]"
