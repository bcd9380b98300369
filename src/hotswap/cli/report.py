"""``hotswap report``: how good a model's versions were, by what is recorded and the labels."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
import typer

from hotswap.cli import output
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Url, segment
from hotswap.cli.traffic import Model
from hotswap.core.quality_views import Quality
from hotswap.errors import BadInput
from hotswap.web import quality_words as words
from hotswap.web.phrases import number
from hotswap.web.report import when

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_FORMS: Final = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown",
                 ".json": "json"}  # fmt: skip
#: Rows that differ that are shown on a terminal.
_ROWS: Final = 5
_STYLES: Final = {"good": "green", "bad": "bold red", "quiet": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(report)


def report(
    model: Model,
    since: Annotated[
        str | None,
        typer.Option(
            help="Records of the last 7d, 12h or 30m, or since a date. Default: all there are.",
            metavar="WHEN",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Records up to so long ago, or before a date.", metavar="WHEN"),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Also by the values of this input.", metavar="COLUMN")
    ] = None,
    versions: Annotated[
        str | None,
        typer.Option(
            help="Stable and candidate, v1,v2. Default: those that were most often asked the same.",
            metavar="V1,V2",
        ),
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
    """How good a model's versions were: on the same requests where both answered.

    Needs a server that records (it does by default), and labels: `hotswap feedback FILE`. The HTML
    report is one file that needs no network.

    Examples:

    `hotswap report fraud --since 7d`

    `hotswap report fraud --by country --out fraud.html`
    """
    form = None if out is None else form_of(out)
    query = _query(since, until, by, versions)
    path = f"/api/v1/models/{segment(model)}/report" + (f"?{urlencode(query)}" if query else "")
    quiet = as_json or form is not None
    with Client(url, token) as client, output.spinner(f"measuring {model}", quiet):
        answer = client.call("GET", path, wait=True)
    if out is not None:
        write_file(out, written(answer, str(form)))
        if as_json:
            output.emit({"file": str(out)})
        else:
            output.say("wrote ", (str(out), "bold"))
    elif as_json:
        output.emit(answer)
    else:
        show(_quality(answer))


def show(quality: Quality) -> None:
    """The report on a terminal: what it says first, then the figures."""
    output.say((words.title(quality), "bold"))
    for sentence in words.headline(quality):
        output.say(sentence)
    for each in quality.differences:
        style = _STYLES[words.tone(each.better)]
        output.say(("● ", style), each.sentence)
    for sentence in (*quality.notes, *quality.skipped):
        output.say((sentence, "yellow"))
    _metrics(quality)
    _differences(quality)
    if words.agreed(quality):
        output.say(words.agreed(quality))
    _segments(quality)
    _apart(quality)


def _metrics(quality: Quality) -> None:
    if not quality.sides:
        return
    sides = quality.sides
    names = [side.version for side in sides]
    rows: list[list[output.Cell]] = [
        [words.name(m), *(words.value(m, side.metrics.get(m)) for side in sides)]
        for m in words.metrics_of(sides)
    ]
    rows.append([("labelled rows", "dim"), *((f"{side.n:,}", "dim") for side in sides)])
    for label in ("p50", "p95", "p99"):
        timed = [getattr(side.latency, label, None) for side in sides]
        if any(each is not None for each in timed):
            cells = [f"{number(each)} ms" if each is not None else "–" for each in timed]
            rows.append([f"Latency {label}", *cells])
    output.table(["Metric", *names], rows, right=names)


def _differences(quality: Quality) -> None:
    if not quality.differences:
        return
    rows: list[list[output.Cell]] = [
        [
            words.name(each.metric),
            words.change(each.metric, each.estimate),
            words.bounds(each.metric, each.low, each.high),
            f"{each.n:,}",
            (words.verdict(each.better), _STYLES[words.tone(each.better)]),
        ]
        for each in quality.differences
    ]
    names = ["Metric", "Difference", "95 % bounds", "Of", f"{quality.candidate} is"]
    output.table(names, rows, right=names[1:4])


def _segments(quality: Quality) -> None:
    if not quality.segments:
        return
    main = quality.main
    paired = bool(quality.candidate)
    rows: list[list[output.Cell]] = []
    for each in quality.segments:
        row: list[output.Cell] = [words.shown(each.name, 60), f"{each.n:,}"]
        row.append(words.value(main, each.stable))
        if paired:
            style = _STYLES[words.tone(words.better(each, main))]
            row += [words.value(main, each.candidate)]
            row += [(words.bounds(main, each.low, each.high), style)]
        rows.append(row)
    names = [words.shown(quality.segments_by, 60), "Labelled rows"]
    names.append(f"{words.name(main)} of {quality.stable}" if paired else words.name(main))
    names += [f"of {quality.candidate}", "95 % bounds"] if paired else []
    output.table(names, rows, right=names[1:])


def _apart(quality: Quality) -> None:
    if not quality.apart:
        return
    rows: list[list[output.Cell]] = [
        [
            when(each.time),
            words.shown(each.request_id, 40),
            str(each.row),
            words.shown(each.stable, 40),
            words.shown(each.candidate, 40),
            number(each.apart),
            words.shown(each.label, 40),
        ]
        for each in quality.apart[:_ROWS]
    ]
    output.say(("They differ most on:", "bold"))
    names = ["When", "Request", "Row", quality.stable, quality.candidate, "Apart", "Label"]
    output.table(names, rows, right=["Row", "Apart"])


def _query(
    since: str | None, until: str | None, by: str | None, versions: str | None
) -> dict[str, str]:
    from hotswap.app.clock import SystemClock

    now = SystemClock().wall()
    query = {}
    begin = None if since is None else ago("--since", since, now)
    end = 0.0 if until is None else ago("--until", until, now)
    if begin is not None:
        if begin <= end:
            raise BadInput("that time ends before it begins: --since is further back than --until")
        query["since_seconds"] = f"{begin:.3f}"
    if until is not None:
        query["until"] = f"{now - end:.3f}"
    if by is not None:
        query["by"] = by
    if versions is not None:
        query["versions"] = versions
    return query


def ago(flag: str, text: str, now: float) -> float:
    """How many seconds before ``now`` that is: a duration such as 7d, or a date (UTC without zone).

    >>> ago("--since", "7d", 0), ago("--since", "1.5h", 0), ago("--since", "1970-01-01", 60)
    (604800.0, 5400.0, 60.0)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|min|h|d|w)", text.strip())
    if found:
        return float(found[1]) * _UNITS[found[2]]
    try:
        date = datetime.fromisoformat(text.strip())
        return now - (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadInput(
            f"{flag} takes how long ago, such as 7d, 12h or 30m, or a date such as 2030-01-31, "
            f"not {text[:64]!r}"
        ) from None


def form_of(file: Path) -> str:
    """What a file of that name holds. Raises `BadInput`."""
    form = _FORMS.get(file.suffix.lower())
    if form is None:
        raise BadInput(f"--out writes .html, .md or .json, as the file's name ends; not '{file}'")
    return form


def written(answer: Any, form: str) -> str:
    """A report as the server gave it, in a form of `form_of`."""
    from hotswap.web import quality

    if form == "json":
        return json.dumps(answer, indent=1) + "\n"
    return quality.write(_quality(answer), form)


def _quality(answer: Any) -> Quality:
    try:
        return msgspec.convert(answer, Quality)
    except msgspec.ValidationError as problem:
        raise CommandFailed(
            f"the report cannot be read ({problem}): is the server of another version? --json shows it"
        ) from None


def write_file(path: Path, text: str) -> None:
    """Raises `CommandFailed`."""
    try:
        path.write_text(text, "utf-8")
    except OSError as problem:
        raise CommandFailed(f"{path} cannot be written: {problem.strerror}") from None


__all__ = ["ago", "form_of", "register", "report", "show", "write_file", "written"]
