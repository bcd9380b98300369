"""``hotswap rollout verify`` and ``report``: what a journal proves, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli import output
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Url, segment
from hotswap.cli.rollout_find import PATH, find, seen
from hotswap.core.rollout_views import JournalView
from hotswap.errors import BadInput
from hotswap.web.reading import read_journal


def verify(
    id: Annotated[
        str | None,
        typer.Argument(
            help="Id of the rollout, or a model's name; not needed with --journal.",
            metavar="[ID]",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", help="A journal that was saved, as JSON.", metavar="FILE"),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Also write the journal to this file.", metavar="FILE"),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Make every decision of a rollout again from its journal, and compare.

    Exits with 1 if any comes out otherwise. With `--journal` no server is needed.

    Examples:

    `hotswap rollout verify fraud --save journal.json`

    `hotswap rollout verify --journal journal.json`
    """
    if journal is not None:
        if save is not None:
            raise CommandFailed("--save is for a journal that a server has: leave out --journal")
        answer = _read(journal)
    elif id is not None:
        with Client(url, token) as client:
            answer = client.get(f"{PATH}/{segment(str(find(client, id)['id']))}/journal")
    else:
        raise CommandFailed("give the id of a rollout, or a saved journal with --journal FILE")
    entries = read_journal(answer)
    if not entries:
        raise CommandFailed("the journal is empty: there is nothing to verify")
    if save is not None:
        _write(save, json.dumps(answer, indent=1) + "\n")
    _verdict(entries, as_json)


def _verdict(entries: Sequence[JournalView], as_json: bool) -> None:
    from hotswap.core.verification import verify as check

    result = check(entries)
    wrong = [{"number": each.number, "message": each.message} for each in result.mismatches]
    if as_json:
        output.emit({"decisions": result.decisions, "ok": not wrong, "mismatches": wrong})
        if wrong:
            raise typer.Exit(1)
        return
    for each in wrong:
        output.say((f"entry {each['number']}: ", "bold red"), str(each["message"]))
    if wrong:
        entries_of = "entry" if len(wrong) == 1 else "entries"
        raise CommandFailed(
            f"the journal does not verify: {len(wrong)} {entries_of} of {len(entries)} differ "
            f"({result.decisions} decisions were made again)"
        )
    one = result.decisions == 1
    count = "1 decision follows" if one else f"{result.decisions} decisions follow"
    output.say(("verified ", "bold green"), f"{count} from the journal")


def report(
    id: Annotated[str, typer.Argument(help="Id of the rollout, or a model's name.", metavar="ID")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to; '-' is the terminal. Default: rollout-ID.html or rollout-ID.md.",
            metavar="FILE",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="html or markdown. Default: as the file's name ends, else html.",
            metavar="FORMAT",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Write an account of a rollout: what was asked, seen and decided, and why.

    The HTML account is one file that needs no network. The Markdown account has its plots as SVG
    files beside it.

    Examples:

    `hotswap rollout report fraud`

    `hotswap rollout report fraud --output fraud-v2.md`
    """
    from hotswap.web import report as accounts

    chosen = _form(form, file)
    with Client(url, token) as client:
        view = seen(find(client, id))
        entries = read_journal(client.get(f"{PATH}/{segment(view.id)}/journal"))
    on_screen = file is not None and str(file) == "-"
    if on_screen and as_json:
        raise CommandFailed("--json says what was written where: give --output a file")
    target = file or Path(f"rollout-{segment(view.id)}{accounts.FORMATS[chosen]}")
    account = accounts.write(view, entries, chosen, "" if on_screen else target.stem)
    if on_screen:
        print(account.text, end="")
        return
    written = [target, *(target.parent / name for name in account.files)]
    for path, text in zip(written, [account.text, *account.files.values()], strict=True):
        _write(path, text)
    if as_json:
        output.emit({"file": str(target), "plots": [str(path) for path in written[1:]]})
    else:
        plots = f" and {len(written) - 1} plots beside it" if written[1:] else ""
        output.say("wrote ", (str(target), "bold"), plots)


def _form(form: str | None, file: Path | None) -> str:
    if form is None:
        return "markdown" if file and file.suffix.lower() in (".md", ".markdown") else "html"
    if form not in ("html", "markdown"):
        raise CommandFailed(f"--format must be html or markdown, not '{form}'")
    return form


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as problem:
        raise CommandFailed(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise BadInput(f"{path} is not JSON: {problem}") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as problem:
        raise CommandFailed(f"{path} cannot be written: {problem.strerror}") from None
