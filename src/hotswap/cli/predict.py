"""``hotswap predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli import output
from hotswap.cli.client import (
    DEFAULT_URL,
    AsJson,
    Client,
    CommandFailed,
    Token,
    Url,
    data_url,
    segment,
)
from hotswap.cli.rows import is_csv, read_body, without_names
from hotswap.cli.traffic import Model
from hotswap.errors import HotswapError

SHOWN = 50


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(predict)


def predict(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="File of rows, or - for stdin: JSON (rows, {name: value} or a /predict body) or "
            "CSV (with or without a line of names).",
            metavar="FILE",
        ),
    ],
    version: Annotated[
        str | None, typer.Option("--version", help="This version, instead of the active one.")
    ] = None,
    url: Url = DEFAULT_URL,
    data_address: Annotated[
        str | None,
        typer.Option(
            "--data-url",
            envvar="HOTSWAP_DATA_URL",
            help="Address that serves predictions; without it the control API is asked for it.",
            metavar="URL",
        ),
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model for predictions."""
    content, name = _read(data)
    body = read_body(content, name) | {"model": model}
    if version is not None:
        body["version"] = version
    if data_address is None:
        with Client(url, token) as control:
            data_address = data_url(control.get("/api/v1/info"), control.url)
    with Client(data_address, token, timeout=300.0) as client:
        try:
            answer = client.call("POST", "/predict", body)
        except CommandFailed:
            plain = _without_names(body, url, token) if is_csv(content, name) else None
            if plain is None:
                raise
            answer = client.call("POST", "/predict", plain)
    if as_json:
        output.emit(answer)
    else:
        _show(answer)


def _without_names(body: dict[str, Any], url: str, token: str | None) -> dict[str, Any] | None:
    """The rows of a CSV whose line of names the model does not know because its columns have none.

    Only then: where columns have names, others are a mistake. None too if control does not say.
    """
    try:
        with Client(url, token) as control:
            view = control.get(f"/api/v1/models/{segment(body['model'])}")
    except HotswapError:
        return None
    return without_names(body, view.get("signature"))


def _read(data: str) -> tuple[bytes, str]:
    """The content, and the name that tells its format."""
    if data == "-":
        return sys.stdin.buffer.read(), "stdin"
    path = Path(data)
    try:
        return path.read_bytes(), path.name
    except OSError as problem:
        raise CommandFailed(f"{data} cannot be read: {problem.strerror}") from None


def _show(answer: dict[str, Any]) -> None:
    single = "prediction" in answer
    predictions = [answer["prediction"]] if single else answer["predictions"]
    probabilities = answer.get("probabilities")
    if single and probabilities is not None:
        probabilities = [probabilities]
    rows: list[list[output.Cell]] = []
    for index, prediction in enumerate(predictions[:SHOWN]):
        row: list[output.Cell] = [str(index), (_value(prediction), "bold")]
        if probabilities is not None:
            row.append(_value(probabilities[index]))
        rows.append(row)
    columns = ["Row", "Prediction"] + ["Probabilities"] * (probabilities is not None)
    output.table(columns, rows, right=["Row"])
    more = len(predictions) - SHOWN
    if more > 0:
        output.say(f"… and {more} more; --json prints all")
    output.say((f"{answer['model']}/{answer['version']}", "dim"), f"  {answer['request_id']}")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(_value(item) for item in value)
    return str(value)
