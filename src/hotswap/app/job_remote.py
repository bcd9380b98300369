"""What the job process does elsewhere: fetch versions, ask a model registry, tell it.

Such requests go to a process of their own, which alone has the credentials for it; no model's
code ever runs there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotswap.core.registry_views import Fetched, Listed, Told
from hotswap.core.registry_wishes import Letter
from hotswap.core.uris import ModelReference, check_allowed, parse_remote
from hotswap.errors import BadInput

if TYPE_CHECKING:
    from hotswap.sources.mlflow_registry import MlflowRegistry


class FetchRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="fetch"):
    """Fetch a version into an empty folder.

    ``prefixes``: what the operator allows; ``tracking_uri``: of the registry, None without one;
    ``roots``: folders that a registry's version may lie in on this machine.
    """

    id: int
    uri: str
    into: str
    prefixes: list[str]
    most_bytes: int
    most_files: int
    tracking_uri: str | None = None
    roots: list[str] = []


class LookRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="look"):
    """What a registry says: see `hotswap.sources.mlflow_registry.MlflowRegistry.look`."""

    id: int
    tracking_uri: str
    names: list[str]
    stable: str
    candidate: str
    asked: dict[str, list[str]] = {}


class TellRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="tell"):
    """Tell a registry: see `hotswap.sources.mlflow_registry.MlflowRegistry.tell`."""

    id: int
    tracking_uri: str
    name: str
    letter: Letter
    stable: str
    report: str


def fetch(request: FetchRequest, progress: Callable[[int, int], None]) -> Fetched:
    """Raises `BadInput` for what is not allowed, `LoadError`, `NotFound`, `Unavailable`."""
    from hotswap.sources import remote

    place = parse_remote(request.uri)
    limits = remote.FetchLimits(request.most_bytes, request.most_files)
    into = Path(request.into)
    if isinstance(place, ModelReference):
        if request.tracking_uri is None:
            raise BadInput("models:/ needs a registry: start the server with --registry mlflow")
        roots = [Path(root) for root in request.roots]
        registry = _registry(request.tracking_uri)
        return registry.fetch(place, into, limits, request.prefixes, roots, progress)
    check_allowed(place, request.prefixes)
    path = remote.fetch(place, into, limits, progress=progress)
    return Fetched(str(path), place.uri)


def look(request: LookRequest) -> list[Listed]:
    """Raises `Unavailable`."""
    registry = _registry(request.tracking_uri)
    return registry.look(request.names, request.stable, request.candidate, request.asked)


def tell(request: TellRequest) -> Told:
    """Raises `Unavailable`, `RegistryRefused`, `LoadError` if it is not allowed."""
    registry = _registry(request.tracking_uri)
    return registry.tell(request.name, request.letter, request.stable, request.report)


@cache
def _registry(uri: str) -> MlflowRegistry:
    from hotswap.sources.mlflow_registry import MlflowRegistry

    return MlflowRegistry(uri)
