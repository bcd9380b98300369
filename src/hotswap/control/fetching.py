"""Versions that lie elsewhere: fetched once, into a private folder, then taken in like any other."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from hotswap.control.jobs import JobRunner
from hotswap.core.naming import STAGING
from hotswap.core.registry_views import Fetched
from hotswap.errors import LoadError, StoreError


class FetchPolicy(msgspec.Struct, frozen=True):
    """What may be fetched. ``prefixes``: of object stores; ``tracking_uri``: of the registry that
    models:/ is allowed for, or None.
    """

    prefixes: tuple[str, ...] = ()
    tracking_uri: str | None = None
    most_bytes: int = 64 * 1024**3
    most_files: int = 10_000
    seconds: float = 1800.0


class Fetching:
    """Fetches through ``jobs``, whose process has the credentials for it.

    ``roots``: folders of this machine that a registry's version may lie in.
    """

    def __init__(
        self, jobs: JobRunner, policy: FetchPolicy, state_dir: Path, roots: Sequence[Path]
    ) -> None:
        self._jobs = jobs
        self._policy = policy
        self._state_dir = state_dir
        self._roots = [os.fspath(root) for root in roots]

    @asynccontextmanager
    async def fetched(self, uri: str) -> AsyncIterator[tuple[Fetched, Path]]:
        """What was fetched, and the folder that it lies in unless the source is a local one.

        The folder is removed at the end. Raises `BadInput` for what is not allowed, `LoadError`,
        `NotFound`, `Unavailable`, `StoreError`.
        """
        # Named like the jobs' own, by this process's id: what is left by a kill is swept.
        private = self._state_dir / "artifacts" / f"{STAGING}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            await asyncio.to_thread(private.mkdir, 0o700, parents=True)
        except OSError as error:
            raise StoreError(
                f"the state directory {self._state_dir} cannot be written ({error.strerror})"
            ) from error
        try:
            yield await self._fetch(uri, private), private
        finally:
            await asyncio.to_thread(shutil.rmtree, private, ignore_errors=True)

    async def _fetch(self, uri: str, into: Path) -> Fetched:
        policy = self._policy
        request = {
            "kind": "fetch",
            "uri": uri,
            "into": os.fspath(into),
            "prefixes": list(policy.prefixes),
            "most_bytes": policy.most_bytes,
            "most_files": policy.most_files,
            "tracking_uri": policy.tracking_uri,
            "roots": self._roots,
        }
        try:
            async with asyncio.timeout(policy.seconds):
                return await self._jobs.run(f"fetching {ascii(uri)[:100]}", request, Fetched)
        except TimeoutError:
            raise LoadError(
                f"fetching {ascii(uri)[:100]} took longer than {policy.seconds:g} s: raise "
                "fetch_seconds"
            ) from None
