"""``hotswap models …``: what is registered, and what becomes of it."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli import convert, drift, output
from hotswap.cli.client import (
    DEFAULT_URL,
    AsJson,
    Client,
    CommandFailed,
    Token,
    Url,
    complete_models,
    complete_versions,
    segment,
)
from hotswap.cli.traffic import Model, Version
from hotswap.core.uris import is_remote

app = typer.Typer(help="List, add, load, convert and remove versions.", no_args_is_help=True)
_NOTE = 70
_NARROW = 120
STATE_STYLES = {"READY": "green", "UNAVAILABLE": "bold red", "LOADING": "yellow"}

OptionalVersion = Annotated[
    str | None,
    typer.Argument(
        help="Version; without it, the whole model.",
        autocompletion=complete_versions,
        metavar="[VERSION]",
    ),
]


@app.command("list")
def list_(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Every version of every model: which has the traffic, and what is wrong with the others."""
    with Client(url, token) as client:
        answer = client.get("/api/v1/models")
    if as_json:
        output.emit(answer)
        return
    if not answer["models"]:
        output.say("no model is registered; add one with 'hotswap models add MODEL PATH'")
        return
    for name in _table(answer["models"]):
        output.say((f"reasons in full: hotswap models show {name}", "dim"))


def _table(models: list[dict[str, Any]]) -> list[str]:
    """A line a version, with notes short enough to read; the same one only where it is first.

    On a narrow terminal the notes come below the table.
    The names of the models that have more to tell.
    """
    columns = ["Model", "Version", "State", "Role", "Traffic", "Runtime", "Memory", "Load", "Notes"]
    rows: list[list[output.Cell]] = []
    below: list[tuple[str, str]] = []
    narrow = output.width() < _NARROW
    whole: list[str] = []
    for model in models:
        seen: set[str] = set()
        cut = False
        for index, version in enumerate(reversed(model["versions"])):
            reason = version["reason"]
            note = "not validated" if version["unvalidated"] and not reason else short(reason)
            cut = cut or note != reason != ""
            if reason and reason in seen:
                note, cut = "the same", True
            seen.add(reason)
            name = model["name"] if index == 0 else ""
            rows.append([name, *_cells(version), *([] if narrow else [note])])
            if narrow and note:
                below.append((f"{model['name']}/{version['version']}: ", note))
        if cut:
            whole.append(model["name"])
        if not model["versions"]:
            rows.append([model["name"], "no versions", *[""] * (6 if narrow else 7)])
    if narrow:
        columns.pop()
    output.table(columns, rows, right=["Traffic", "Memory", "Load"])
    for subject, note in below:
        output.say((subject, "yellow"), note)
    for model in models:
        for warning in model["warnings"]:
            output.say((f"{model['name']}: ", "yellow"), warning)
    return whole


def short(reason: str) -> str:
    """A reason's first clause, cut at a word to `_NOTE` characters.

    >>> short("ValueError: not a model")
    'ValueError: not a model'
    >>> short("it cannot be loaded; install scikit-learn")
    'it cannot be loaded …'
    """
    line = " ".join(reason.split())
    clause = re.split(r"; |(?<=[.!?]) (?=[A-Z])", line, maxsplit=1)[0]
    if len(clause) <= _NOTE:
        return clause if clause == line else clause.rstrip(".;") + " …"
    return (
        textwrap.shorten(clause, _NOTE, placeholder=" …")
        if " " in clause[:_NOTE]
        else (clause[: _NOTE - 1] + "…")
    )


def _cells(version: dict[str, Any]) -> list[output.Cell]:
    active = version["role"] == "stable"
    memory = version["memory_bytes"]
    seconds = version["load_seconds"]
    return [
        (version["version"], "bold green" if active else ""),
        (version["state"], STATE_STYLES.get(version["state"], "dim")),
        version["role"],
        f"{version['weight']:g} %" if version["weight"] else "",
        version["runtime"],
        f"{memory / 1024**2:.1f} MiB" if memory else "",
        f"{seconds:.2f} s" if seconds is not None else "",
    ]


@app.command()
def show(
    model: Model,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """One model: what it takes and gives, and its versions in full."""
    with Client(url, token) as client:
        answer = client.get(f"/api/v1/models/{segment(model)}")
    if as_json:
        output.emit(answer)
        return
    _table([answer])
    signature = answer["signature"]
    for side in ("inputs", "outputs"):
        for spec in (signature or {}).get(side, ()):
            shape = " × ".join("any" if size < 0 else str(size) for size in spec["shape"])
            output.say((f"{side[:-1]:>8}  ", "dim"), f"{spec['name']}  {spec['datatype']}  {shape}")
    for version in reversed(answer["versions"]):
        _details(version)


def _details(version: dict[str, Any]) -> None:
    when = datetime.fromtimestamp(version["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    output.say()
    output.say((version["version"], "bold"), f"  {version['digest']}")
    lines = {
        "from": version["uri"],
        "added": f"{when} by {version['created_by']}" if version["created_by"] else when,
        "changelog": version["changelog"],
        "metadata": json.dumps(version["metadata"]) if version["metadata"] else "",
        "reason": version["reason"],
    }
    for name, text in lines.items():
        if text:
            output.say((f"{name:>10}  ", "dim"), text)


@app.command()
def add(
    model: Model,
    path: Annotated[
        str,
        typer.Argument(
            help="File or folder that the server can read, or an s3://, gs:// or models:/ URI that it "
            "may fetch.",
            metavar="PATH",
        ),
    ],
    version: Annotated[
        str | None, typer.Option("--version", help="Id of the version; without it, the next vN.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="What runs it, if the files do not tell.")
    ] = None,
    changelog: Annotated[str, typer.Option("--changelog", help="What is new in it.")] = "",
    metadata: Annotated[
        str | None, typer.Option("--metadata", help="A JSON object, kept with the version.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Do not copy the artifact; hash it at each load.")
    ] = False,
    compile: Annotated[
        str | None,
        typer.Option("--compile", help="'onnx' converts it and proves that both agree."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Register a version. It gets no traffic: 'hotswap switch' gives it that."""
    with Client(url, token) as client:
        body: dict[str, Any] = {"uri": _uri(path, client.local)}
        given = {
            "version": version,
            "runtime": runtime,
            "changelog": changelog or None,
            "metadata": _metadata(metadata),
            "in_place": in_place or None,
            "compile": compile,
        }
        body |= {name: value for name, value in given.items() if value is not None}
        with output.spinner(f"registering {path} for {model}", as_json):
            answer = client.post(f"/api/v1/models/{segment(model)}/versions", body)
    if as_json:
        output.emit(answer)
    else:
        output.say("registered ", (f"{model}/{answer['version']}", "bold"), f"  {answer['digest']}")


def _uri(path: str, local: bool) -> str:
    """The path as the server finds it, whose working directory is another."""
    if not local or "://" in path or is_remote(path):
        return path
    return str(Path(path).expanduser().absolute())


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise CommandFailed(f"--metadata is not valid JSON: {problem}") from None
    if not isinstance(value, dict):
        raise CommandFailed('--metadata must be a JSON object such as {"auc": 0.9}')
    return value


@app.command()
def remove(
    model: Annotated[
        str, typer.Argument(help="Name of the model.", autocompletion=complete_models)
    ],
    version: OptionalVersion = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take a whole model out of service although it is active."),
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Remove a version, or a whole model; not while it has traffic."""
    path = f"/api/v1/models/{segment(model)}"
    if version is not None:
        if force:
            raise CommandFailed("--force is for whole models: switch away from a version instead")
        path += f"/versions/{segment(version)}"
    elif not yes:
        if not sys.stdin.isatty():
            raise CommandFailed(f"this would remove all of '{model}': name a version or add --yes")
        typer.confirm(f"Remove {model} with all of its versions?", abort=True)
    with Client(url, token) as client:
        answer = client.delete(path + ("?force=true" if force else ""))
    if as_json:
        output.emit(answer)
    else:
        output.say(f"removed {model}" + (f"/{version}" if version else ""))


@app.command()
def load(
    model: Model,
    version: Version,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Load a version, check it and warm it, without giving it traffic."""
    _command(model, version, "load", url, token, as_json)


@app.command()
def unload(
    model: Model,
    version: Version,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Release a loaded version's processes and their memory."""
    _command(model, version, "unload", url, token, as_json)


def _command(
    model: str, version: str, verb: str, url: str, token: str | None, as_json: bool
) -> None:
    path = f"/api/v1/models/{segment(model)}/versions/{segment(version)}/{verb}"
    with Client(url, token) as client, output.spinner(f"{verb}ing {model}/{version}", as_json):
        answer = client.post(path)
    if as_json:
        output.emit(answer)
    else:
        took = answer.get("prepare_ms")
        output.say(f"{verb}ed {model}/{version}" + (f" in {took:.0f} ms" if took else ""))


app.command("drift")(drift.drift)
app.command("convert")(convert.convert)
