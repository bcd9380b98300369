"""``hotswap models drift``: what is asked and answered now, against a frozen reference."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from hotswap.cli import output
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, Token, Url, segment
from hotswap.cli.traffic import Model

_BAR: Final = 12


def drift(
    model: Model,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Freeze new references, of what comes from now on."),
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """How far a model's inputs and answers are from their frozen reference."""
    path = f"/api/v1/models/{segment(model)}/drift"
    with Client(url, token) as client, output.spinner(f"looking at {model}", as_json or not reset):
        answer = client.post(f"{path}/reset") if reset else client.get(path)
    if as_json:
        output.emit(answer)
        return
    alarmed = any(each["alarmed_since"] for each in answer["columns"])
    output.say((answer["message"], "bold red" if alarmed else ""))
    for reference in answer["references"]:
        if reference["state"] == "watching":
            _reference(reference)
    if answer["columns"]:
        _table(answer["columns"])
    for each in answer["columns"]:
        if each["alarmed_since"]:
            since = _when(each["alarmed_since"])
            output.say((f"{each['column']}: ", "red"), f"{each['cause']}, since {since}")
    for sentence in (*answer["problems"], *answer["skipped"]):
        output.say((sentence, "yellow" if sentence in answer["problems"] else "dim"))


def _reference(reference: dict[str, Any]) -> None:
    version = f" of {reference['version']}" if reference["version"] else ""
    span = f"{_when(reference['first'])} to {_when(reference['last'])}"
    name = f"{reference['side']}s{version}"
    output.say((f"reference of {name}: {reference['rows']:,} rows, {span}", "dim"))


def _table(columns: list[dict[str, Any]]) -> None:
    names = ["Column", "Distance", "", "Tolerance", "At least", "Rows", "Missing", "PSI", "JS"]
    rows: list[list[output.Cell]] = []
    for each in columns:
        style = "bold red" if each["alarmed_since"] else ""
        rows.append(
            [
                (each["column"], style),
                _share(each["distance"]),
                (bar(each["distance"], each["tolerance"]), style or "dim"),
                f"{each['tolerance']:g}",
                _share(each["bound"]),
                f"{each['n']:,}",
                _missing(each),
                _share(each["psi"]),
                _share(each["js"]),
            ]
        )
    output.table(names, rows, right=["Distance", "Tolerance", "At least", "Rows", "PSI", "JS"])


def bar(distance: float | None, tolerance: float) -> str:
    """The distance against the tolerance, which is in the middle.

    >>> bar(0.05, 0.1), bar(0.4, 0.1), bar(None, 0.1)
    ('███···|······', '██████|██████', '')
    """
    if distance is None:
        return ""
    half = _BAR // 2
    filled = min(_BAR, round(half * distance / tolerance))
    cells = "█" * filled + "·" * (_BAR - filled)
    return f"{cells[:half]}|{cells[half:]}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _missing(column: dict[str, Any]) -> str:
    now, before = column["missing"], column["missing_reference"]
    if now is None or column["side"] == "output" or not (now or before):
        return ""
    return f"{100 * now:.3g} % (was {100 * before:.3g} %)"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
