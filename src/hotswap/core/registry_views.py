"""What a model registry says, and what is shown of following it: values only."""

from __future__ import annotations

from typing import Any

import msgspec


class Listed(msgspec.Struct, frozen=True):
    """One registered model as the registry tells of it; versions by their numbers, as strings.

    ``stable``, ``candidate``: with the aliases. ``production``, ``staging``: the newest in those
    stages. ``gone``: those asked about that are not there any more. ``missing``: there is no such
    model.
    """

    name: str
    stable: str | None = None
    candidate: str | None = None
    production: str | None = None
    staging: str | None = None
    gone: tuple[str, ...] = ()
    missing: bool = False


class Told(msgspec.Struct, frozen=True):
    """What came of telling the registry: ``stable`` is what its alias names now; ``moved``, whether
    that is what was asked for; ``note``, what could not be done, and why.
    """

    stable: str | None
    moved: bool
    note: str = ""


class Fetched(msgspec.Struct, frozen=True):
    """Files that were fetched: ``path`` of the folder or file, within the folder that was given.

    ``uri``: exactly what was fetched, an alias resolved. ``origin``: what the source tells of it.
    """

    path: str
    uri: str
    origin: dict[str, Any] = {}
    description: str = ""


class FollowedView(msgspec.Struct, frozen=True):
    """One registered model that is followed.

    ``name`` there, ``model`` here. ``by``: alias or stage. ``stable``, ``candidate``: the versions
    the registry names now, None for none; ``stable_done``, ``candidate_done``: those that were
    acted upon last. ``rollout``: the last that was started for a candidate. ``active``: what
    answers now. ``unsent``: what the registry is still to be told. ``notes``: what is left as it
    is, and why; ``problems``: what could not be done, and why.
    """

    name: str
    model: str
    by: str
    stable: str | None
    candidate: str | None
    stable_done: str | None
    candidate_done: str | None
    rollout: str | None
    active: str | None
    unsent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class RegistryView(msgspec.Struct, frozen=True):
    """The registry that is followed. Times are Unix times.

    ``read_at``: when it last answered; ``down_since``: since when it does not, with ``error``.
    ``write``: whether it is told what was decided.
    """

    kind: str
    uri: str
    stable_alias: str
    candidate_alias: str
    poll_seconds: float
    write: bool
    read_at: float | None
    down_since: float | None
    error: str
    models: tuple[FollowedView, ...] = ()
