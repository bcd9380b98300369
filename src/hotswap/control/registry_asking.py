"""Asking a model registry, through a process that has its library and the credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from hotswap.control.jobs import JobRunner
from hotswap.core.registry_views import Listed, Told
from hotswap.core.registry_wishes import Letter
from hotswap.errors import Unavailable

_LOOK_SECONDS = 120.0


class RegistrySpec(msgspec.Struct, frozen=True):
    """Which registry is followed, and how. ``names``: of its models, none for all that serve.

    ``percentage`` and ``rollout``: of a candidate's rollout. ``write``: it is told what was
    decided.
    """

    uri: str
    kind: str = "mlflow"
    names: tuple[str, ...] = ()
    poll_seconds: float = 30.0
    stable_alias: str = "champion"
    candidate_alias: str = "challenger"
    percentage: float = 10.0
    rollout: dict[str, Any] | None = None
    write: bool = False


class Asking(Protocol):
    """A registry. An outage is `Unavailable`."""

    async def look(self, asked: Mapping[str, Sequence[str]]) -> list[Listed]:
        """Its models; and those of ``asked``, with which of those versions are gone."""
        ...

    async def tell(self, name: str, letter: Letter, report: str) -> Told:
        """Tell it of a rollout, whose account stands at ``report``. Raises `RegistryRefused` for
        what it will not take later either.
        """
        ...


class JobAsking:
    """`Asking` by `hotswap.app.job`. One at a time, so that no look overtakes what was told."""

    def __init__(self, jobs: JobRunner, spec: RegistrySpec) -> None:
        self._jobs = jobs
        self._spec = spec

    async def look(self, asked: Mapping[str, Sequence[str]]) -> list[Listed]:
        spec = self._spec
        request = {
            "kind": "look",
            "tracking_uri": spec.uri,
            "names": list(spec.names),
            "stable": spec.stable_alias,
            "candidate": spec.candidate_alias,
            "asked": {name: list(versions) for name, versions in asked.items()},
        }
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._jobs.run("asking the registry", request, list[Listed])
        except TimeoutError:
            raise Unavailable(f"the registry gave no answer in {_LOOK_SECONDS:g} s") from None

    async def tell(self, name: str, letter: Letter, report: str) -> Told:
        request = {
            "kind": "tell",
            "tracking_uri": self._spec.uri,
            "name": name,
            "letter": msgspec.to_builtins(letter),
            "stable": self._spec.stable_alias,
            "report": report,
        }
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._jobs.run("telling the registry", request, Told)
        except TimeoutError:
            raise Unavailable(f"the registry gave no answer in {_LOOK_SECONDS:g} s") from None
