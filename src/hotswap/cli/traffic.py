"""``hotswap switch`` and ``hotswap rollback``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hotswap.cli import output
from hotswap.cli.client import (
    DEFAULT_URL,
    AsJson,
    Client,
    Token,
    Url,
    complete_models,
    complete_versions,
    segment,
)

Model = Annotated[
    str,
    typer.Argument(help="Name of the model.", autocompletion=complete_models, metavar="MODEL"),
]
Version = Annotated[
    str,
    typer.Argument(
        help="Version of the model.", autocompletion=complete_versions, metavar="VERSION"
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="The same key again gives the first answer again, and switches nothing.",
        metavar="KEY",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(switch)
    app.command()(rollback)


def switch(
    model: Model,
    version: Version,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if the version's signature does not fit the model's."),
    ] = False,
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Give all of a model's traffic to a version, at once.

    The version is loaded, checked and warmed first; no request is dropped.
    """
    body: dict[str, Any] = {"version": version}
    if force:
        body["force"] = True
    with output.spinner(f"preparing {model}/{version} and switching to it", as_json):
        answer = _post(url, token, f"/api/v1/models/{segment(model)}/switch", body, idempotency_key)
    _show(model, answer, as_json)


def rollback(
    model: Model,
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Give a model's traffic back to the version that had it before."""
    with output.spinner(f"rolling {model} back", as_json):
        answer = _post(url, token, f"/api/v1/models/{segment(model)}/rollback", {}, idempotency_key)
    _show(model, answer, as_json)


def _post(url: str, token: str | None, path: str, body: dict[str, Any], key: str | None) -> Any:
    if key is not None:
        body["idempotency_key"] = key
    with Client(url, token) as client:
        return client.post(path, body)


def _show(model: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit(answer)
        return
    before = answer["from"] or "nothing"
    output.say(
        f"{model}: {before} → ",
        (answer["to"], "bold green"),
        f"  revision {answer['revision']}, flipped in {answer['flip_ms']:.2g} ms, "
        f"prepared in {answer['prepare_ms']:.0f} ms",
    )
