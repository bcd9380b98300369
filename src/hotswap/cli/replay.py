"""``hotswap replay``: a version over recorded inputs, before it sees any traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from hotswap.cli import output, report
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Url, segment
from hotswap.cli.traffic import Model, Version
from hotswap.core.replay_views import Replay


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(replay)


def replay(
    model: Model,
    version: Version,
    since: Annotated[
        str | None,
        typer.Option(
            help="Records of the last 7d, 12h or 30m, or since a date. Default: all there are.",
            metavar="WHEN",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="The newest rows, so many at most. Default: 100000.", min=1, metavar="ROWS"
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Also by the values of this input.", metavar="COLUMN")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help="Write .html, .md or .json to this file.",
            metavar="FILE",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Run a registered version over recorded inputs, and compare it with what was answered.

    It gets no traffic, and need not be loaded. Needs a server that records inputs (it does by
    default); with labels, the report says which answers were better.

    Examples:

    `hotswap replay fraud v2 --since 7d`

    `hotswap replay fraud v2 --limit 10000 --out replay.html`
    """
    form = None if out is None else report.form_of(out)
    body: dict[str, Any] = {} if by is None else {"by": by}
    if since is not None:
        from hotswap.app.clock import SystemClock

        body["since_seconds"] = report.ago("--since", since, SystemClock().wall())
    if limit is not None:
        body["max_rows"] = limit
    path = f"/api/v1/models/{segment(model)}/versions/{segment(version)}/replay"
    with Client(url, token) as client, output.spinner(f"replaying {model}/{version}", as_json):
        answer = client.post(path, body)
    if out is not None and form is not None:
        text = report.written(answer if form == "json" else answer["quality"], form)
        report.write_file(out, text)
        if as_json:
            output.emit({"file": str(out)})
        else:
            _summary(_read(answer))
            output.say("wrote ", (str(out), "bold"))
    elif as_json:
        output.emit(answer)
    else:
        found = _read(answer)
        _summary(found)
        report.show(found.quality)


def _read(answer: Any) -> Replay:
    try:
        return msgspec.convert(answer, Replay)
    except msgspec.ValidationError as problem:
        raise CommandFailed(
            f"the replay cannot be read ({problem}): is the server of another version? --json shows it"
        ) from None


def _summary(found: Replay) -> None:
    requests = f"{found.rows:,} rows of {found.requests:,} requests"
    output.say(
        (f"{found.model}/{found.version}", "bold"),
        f" was run over {requests} in {found.seconds:.3g} s, {found.ms_per_row:.3g} ms a row",
    )
    output.say((f"{found.errors:,} rows failed", "bold red" if found.errors else "green"))
    for problem in found.problems:
        output.say("  ", (problem, "red"))
    if found.agreement is not None:
        output.say(f"{found.agreement:.2%} answered alike")
    if found.left_out:
        output.say((f"{found.left_out:,} rows have not all inputs, and were left out", "yellow"))


__all__ = ["register", "replay"]
