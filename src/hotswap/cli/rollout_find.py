"""Finding a rollout on the server: by its id, or as the latest of a model."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from hotswap.cli.client import Client, CommandFailed, complete_models, segment
from hotswap.core.rollout_views import RolloutView
from hotswap.web.reading import entries, read_rollout

PATH = "/api/v1/rollouts"

Id = Annotated[
    str,
    typer.Argument(
        help="Id of the rollout, or a model's name for its latest rollout.",
        autocompletion=complete_models,
        metavar="ID",
    ),
]


def find(client: Client, id: str) -> dict[str, Any]:
    """The rollout as the server shows it. Raises `CommandFailed` if there is none."""
    try:
        answer: dict[str, Any] = client.get(f"{PATH}/{segment(id)}")
    except CommandFailed as problem:
        if problem.status != 404:
            raise
    else:
        return answer
    try:
        latest = listed(client, id)
    except CommandFailed as problem:
        if problem.status != 404:
            raise
        latest = []
    if latest:  # a list leaves the details out
        found: dict[str, Any] = client.get(f"{PATH}/{segment(str(latest[0]['id']))}")
        return found
    raise CommandFailed(
        f"there is no rollout '{id}', and no model of that name with a rollout: "
        "'hotswap rollout list' shows them"
    )


def listed(client: Client, model: str | None) -> list[dict[str, Any]]:
    """The rollouts, of one model or of all, newest first."""
    query = f"?model={quote(segment(model))}" if model is not None else ""
    rollouts: list[dict[str, Any]] = entries(client.get(PATH + query), "a list of rollouts")
    return rollouts


def seen(answer: object) -> RolloutView:
    """The server's answer as a view. Raises `BadInput` if it is none."""
    return read_rollout(answer)
