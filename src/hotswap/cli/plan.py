"""``hotswap plan``: what ``hotswap.yaml`` would change on a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hotswap.cli import output, plan_file
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, Token, Url
from hotswap.core.blueprint_difference import Action, by_model, changed, difference

#: What each kind of action is shown as.
MARKS: Final = {
    "register": ("+", "bold green"),
    "switch": ("~", "bold yellow"),
    "rollout": ("~", "bold yellow"),
    "retry": ("~", "bold yellow"),
    "remove": ("-", "bold red"),
    "keep": ("=", "dim"),
    "follow": ("=", "cyan"),
    "leave": ("·", "dim"),
    "refused": ("!", "bold red"),
}

File = Annotated[
    Path,
    typer.Argument(help="The file that says what is wanted.", metavar="FILE"),
]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Remove versions without weight that the file does not name, of models whose versions "
        "it lists.",
    ),
]
Retry = Annotated[
    bool, typer.Option("--retry", help="Begin a rollout again that was rolled back or failed.")
]
DEFAULT_FILE: Final = Path("hotswap.yaml")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(plan)


def plan(
    file: File = DEFAULT_FILE,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="Exit with 2 if there is something to do, and with 1 if something is refused.",
        ),
    ] = False,
    prune: Prune = False,
    retry: Retry = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show what `hotswap apply` would do, and do nothing.

    Exits with 0 if that could be told, whatever it is; see `--exit-code`.

    Examples:

    `hotswap plan hotswap.yaml`

    `hotswap plan hotswap.yaml --exit-code --json`
    """
    blueprint = plan_file.read(file)
    with Client(url, token) as client, output.spinner(f"comparing {file}", as_json):
        present = plan_file.look(client, blueprint)
    actions = difference(blueprint, present, retry=retry, prune=prune)
    refused = any(action.kind == "refused" for action in actions)
    if as_json:
        told = {"changes": changed(actions), "refused": refused}
        output.emit({"file": str(file), **told, "actions": list(map(fields, actions))})
    else:
        show(actions)
        _closing(file, actions)
    if exit_code:
        raise typer.Exit(1 if refused else 2 if changed(actions) else 0)


def fields(action: Action) -> dict[str, Any]:
    """An action as programs read it."""
    return {
        "model": action.model,
        "kind": action.kind,
        "what": action.what,
        "version": action.version,
        "changes": action.changes,
        "sentence": action.sentence,
        "rollout": action.rollout,
    }


def show(actions: Sequence[Action]) -> None:
    """A section a model, a line an action."""
    width = max((len(action.what) for action in actions), default=0)
    for model, mine in by_model(actions).items():
        output.say((model, "bold"))
        for action in mine:
            mark, style = MARKS[action.kind]
            text = (action.sentence, style if action.kind == "refused" else "")
            output.say("  ", (mark, style), f" {action.what:<{width}}  ", text)


def _closing(file: Path, actions: Sequence[Action]) -> None:
    number = sum(action.changes for action in actions)
    refused = sum(action.kind == "refused" for action in actions)
    output.say()
    if refused:
        output.say((f"{refused} refused: ", "bold red"), "see the lines with '!'")
    if number:
        one = "1 change" if number == 1 else f"{number} changes"
        output.say(f"{one}; nothing was done: ", (f"hotswap apply {file}", "bold"), " does it")
    elif not refused:
        output.say("nothing to do")
