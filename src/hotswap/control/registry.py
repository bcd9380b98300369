"""Taking versions in: from the models folder, from the API. Registered is not activated."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.fetching import Fetching
from hotswap.control.jobs import JobRunner
from hotswap.control.warming import Policy
from hotswap.core.lifecycle import VersionDocument
from hotswap.core.naming import check_name, natural_key, next_version
from hotswap.core.spec import Ingested, VersionRecord
from hotswap.core.uris import is_remote
from hotswap.errors import BadInput, Conflict, HotswapError, LoadError, NotFound
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")


class Registry:
    """Hashes and copies through jobs, then writes the catalogue. One registration at a time."""

    def __init__(
        self,
        catalogue: Catalogue,
        jobs: JobRunner,
        policy: Policy,
        clock: Clock,
        state_dir: Path,
        roots: Sequence[Path],
        published: Callable[[], Mapping[str, int]],
        tell: Callable[..., None] = lambda *_, **__: None,
        fetching: Fetching | None = None,
    ) -> None:
        self._fetching = fetching
        self._published = published
        self._tell = tell
        self._catalogue = catalogue
        self._jobs = jobs
        self._policy = policy
        self._clock = clock
        self._state_dir = state_dir
        self._roots = tuple(roots)
        self._lock = asyncio.Lock()
        #: (model, version) -> why the folder's version could not be registered
        self._problems: dict[tuple[str, str], str] = {}
        self._stamps: dict[str, float] = {}

    def problems_of(self, model: str) -> list[str]:
        """What could not be registered, for people."""
        return [f"{v}: {reason}" for (m, v), reason in sorted(self._problems.items()) if m == model]

    def check(self, model: str, version: str) -> None:
        """Raises `NotFound`; `Conflict` with the reason for a version that could not be registered."""
        try:
            self._catalogue.version(model, version)
        except NotFound:
            reason = self._problems.get((model, version))
            if reason is None:
                raise
            raise Conflict(
                f"version {version!r} of model {model!r} could not be registered: {reason}"
            ) from None

    async def adopt(
        self, found: Sequence[tuple[str, str, Path]], *, activate: bool = False
    ) -> None:
        """Register what is new among a source's versions, in natural order of their names.

        ``activate``: mark new models as to be activated (at a first start).
        """
        for model, version, path in sorted(found, key=lambda f: (f[0], natural_key(f[1]))):
            if version in self._catalogue.used(model):
                continue
            if (model, version) in self._problems:
                stamp = f"{model}/{version}"
                if not self._changed(stamp, path):
                    continue
            try:
                async with self._lock:
                    await self._take(
                        model, version, str(path), runtime=None, metadata={}, changelog="",
                        in_place=False, compile=None, who="models folder", roots=(path,), activate=activate,
                    )  # fmt: skip
            except HotswapError as exc:
                self._problems[(model, version)] = str(exc)
                self._changed(f"{model}/{version}", path)
                log.warning(
                    "a version was not registered", model=model, version=version, reason=str(exc)
                )
            else:
                self._problems.pop((model, version), None)
                log.info("a version was registered", model=model, version=version)

    def _changed(self, key: str, path: Path) -> bool:
        """Whether a folder that could not be registered has been changed since."""
        try:
            newest = max(
                [path.stat().st_mtime, *(p.stat().st_mtime for p in path.rglob("*"))], default=0.0
            )
        except OSError:
            return False
        changed = self._stamps.get(key) != newest
        self._stamps[key] = newest
        return changed

    async def register(
        self,
        model: str,
        uri: str,
        *,
        version: str | None,
        runtime: str | None,
        metadata: dict[str, Any],
        changelog: str,
        in_place: bool,
        compile: str | None,
        who: str,
    ) -> VersionDocument:
        """From the API. The same content under the same id again is answered as it was.

        Raises `BadInput`, `Conflict`, `UntrustedCode`, `LoadError`, `StoreError`.
        """
        check_name("model", model)
        if version is not None:
            check_name("version", version)
        if compile not in (None, "onnx"):
            raise BadInput(f"compile {compile!r} does not exist; there is 'onnx'")
        if not is_remote(uri):
            return await self._register(
                model, version, uri, uri, runtime=runtime, metadata=metadata, changelog=changelog,
                in_place=in_place, compile=compile, who=who, roots=self._roots,
            )  # fmt: skip
        if self._fetching is None:
            raise BadInput("only 'hotswap serve' fetches versions from elsewhere: give a path")
        if in_place:
            raise BadInput("what is fetched cannot be served in place: leave in_place out")
        # Without the lock: a slow store must not bar what lies here.
        async with self._fetching.fetched(uri) as (fetched, folder):
            return await self._register(
                model, version, fetched.path, fetched.uri, runtime=runtime,
                metadata={**fetched.origin, **metadata}, changelog=changelog or fetched.description,
                in_place=False, compile=compile, who=who, roots=(folder, *self._roots),
            )  # fmt: skip

    async def _register(
        self, model: str, version: str | None, source: str, uri: str, **more: Any
    ) -> VersionDocument:
        async with self._lock:
            if version is None:
                version = next_version(self._catalogue.used(model))
            return await self._take(model, version, source, recorded=uri, **more)

    async def _take(
        self,
        model: str,
        version: str,
        uri: str,
        *,
        runtime: str | None,
        metadata: dict[str, Any],
        changelog: str,
        in_place: bool,
        compile: str | None,
        who: str,
        roots: Sequence[Path],
        activate: bool = False,
        recorded: str | None = None,
    ) -> VersionDocument:
        overrides = {"compile": compile} if compile is not None else None
        ingested = await self._jobs.ingest(
            uri, state_dir=self._state_dir, allowed_roots=roots, runtime=runtime,
            overrides=overrides, in_place=in_place,
        )  # fmt: skip
        if who != "models folder":
            self._policy.check_trust(ingested.runs_code, ingested.artifact.digest)
        if ingested.settings.compile == "onnx" and ingested.artifact.runtime != "onnx":
            self._policy.check_trust(ingested.runs_code, ingested.artifact.digest)
            ingested = await self._compile(model, version, ingested)
        existing = self._catalogue.versions.get(model, {}).get(version)
        if existing is not None:
            if existing.record.artifact.digest == ingested.artifact.digest:
                return existing
            raise Conflict(
                f"version {version!r} of model {model!r} is registered with other content "
                f"({existing.record.artifact.digest[:19]}…): versions are immutable, choose another id"
            )
        record = VersionRecord(
            model=model,
            version=version,
            artifact=ingested.artifact,
            settings=ingested.settings,
            uri=recorded or uri,
            metadata={**ingested.settings.metadata, **metadata},
            changelog=changelog or ingested.settings.changelog,
            created_at=self._clock.wall(),
            created_by=who,
        )
        document = VersionDocument(record, ingested.platform, ingested.runs_code)
        await self._catalogue.ensure(model, self._published(), activate=activate)
        await self._catalogue.add(document)
        said = f"{version} was registered"
        self._tell("version", model, said, version=version, digest=record.artifact.digest, who=who)
        return document

    async def _compile(self, model: str, version: str, ingested: Ingested) -> Ingested:
        """The version as ONNX, proved to answer like the original."""
        log.info("a version is converted to ONNX", model=model, version=version)
        converted = await self._jobs.convert(
            ingested.artifact,
            ingested.settings,
            state_dir=self._state_dir,
            trusted=True,  # `check_trust` came before
        )
        if converted.ingested.artifact.runtime != "onnx":
            raise LoadError("the conversion to ONNX gave something else")
        report = converted.report
        log.info("the conversion was proved", model=model, version=version, **_flat(report))
        settings = msgspec.structs.replace(
            ingested.settings,
            metadata={**ingested.settings.metadata, "compiled_from": ingested.artifact.digest,
                      "parity": _flat(report)},
        )  # fmt: skip
        return msgspec.structs.replace(converted.ingested, settings=settings)

    async def sweep(self) -> None:
        """Remove copies of artifacts that no version names any more."""
        folder = self._state_dir / "artifacts"
        async with self._lock:
            keep = {digest.removeprefix("sha256:") for digest in self._catalogue.digests()}
            await asyncio.to_thread(_sweep, folder, keep)


def _flat(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if isinstance(value, int | float | str)}


def _sweep(folder: Path, keep: set[str]) -> None:
    if not folder.is_dir():
        return
    for child in folder.iterdir():
        if len(child.name) == 64 and child.name not in keep:
            shutil.rmtree(child, ignore_errors=True)
