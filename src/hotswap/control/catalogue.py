"""Models and versions as the store keeps them, held in memory while control runs.

A document is written before memory changes, with compare-and-set. A write that *lowers*
exposure does not wait: it may be kept `dirty` and written when the store is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog

from hotswap.core.lifecycle import ModelDocument, VersionDocument, removed
from hotswap.core.naming import natural_key
from hotswap.errors import Conflict, NotFound, StoreError
from hotswap.ports import Store

log = structlog.get_logger("hotswap.control")

_T = TypeVar("_T")
_MODEL = "model"
_VERSION = "version"


class Catalogue:
    """Every model and version that is registered."""

    def __init__(self, store: Store) -> None:
        self.models: dict[str, ModelDocument] = {}
        self.removed: dict[str, ModelDocument] = {}
        self.versions: dict[str, dict[str, VersionDocument]] = {}
        self._store = store
        self._generations: dict[tuple[str, str], int] = {}
        self._dirty: dict[str, ModelDocument] = {}
        self._writing: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        """Read everything. Raises `StoreError`."""
        for key, value, generation in await self._store.scan(_MODEL):
            document = _decode(value, ModelDocument, f"model {key!r}")
            self._generations[(_MODEL, key)] = generation
            if document.removed:
                self.removed[key] = document
                continue
            self.models[key] = document
            self.versions.setdefault(key, {})
        for key, value, generation in await self._store.scan(_VERSION):
            version = _decode(value, VersionDocument, f"version {key!r}")
            self.versions.setdefault(version.record.model, {})[version.record.version] = version
            self._generations[(_VERSION, key)] = generation
        for name, versions in self.versions.items():
            self.versions[name] = dict(sorted(versions.items(), key=lambda v: natural_key(v[0])))
            model = self.models.get(name)
            if model is not None:  # control may have died between a version and its model's list
                missing = tuple(version for version in versions if version not in model.used)
                self.models[name] = msgspec.structs.replace(model, used=(*model.used, *missing))

    def model(self, name: str) -> ModelDocument:
        """Raises `NotFound`."""
        try:
            return self.models[name]
        except KeyError:
            raise NotFound(f"there is no model {name!r}") from None

    def version(self, model: str, version: str) -> VersionDocument:
        """Raises `NotFound`."""
        self.model(model)
        try:
            return self.versions[model][version]
        except KeyError:
            known = ", ".join(self.versions[model]) or "none"
            raise NotFound(
                f"model {model!r} has no version {version!r}; registered: {known}"
            ) from None

    def instances(self, model: str, version: str) -> int:
        """How many hosts the version takes as stable. Raises `NotFound`."""
        return self.version(model, version).record.settings.instances

    def registered(self, model: str) -> frozenset[str]:
        return frozenset(self.versions.get(model, {}))

    def used(self, name: str) -> tuple[str, ...]:
        """Every version id that the model ever had, were it removed meanwhile."""
        document = self.models.get(name) or self.removed.get(name)
        return document.used if document is not None else ()

    async def ensure(self, name: str, published: Mapping[str, int], *, activate: bool) -> None:
        """Have the model, new or back again. Raises `StoreError`.

        ``published``: the words of the epoch memory that have tables in this run. A model that
        comes back under its old name gets its old word, where its revisions go on.
        """
        if name in self.models:
            return
        before = self.removed.get(name)
        if before is not None:
            document = msgspec.structs.replace(before, removed=False)
        else:
            known = [*self.models.values(), *self.removed.values()]
            taken = (*(model.index for model in known), *published.values())
            # Word 0 counts models.
            index = published.get(name) or max(taken, default=0) + 1
            document = ModelDocument(name, index, activate=activate)
        await self.save(document)
        self.removed.pop(name, None)

    async def save(self, document: ModelDocument, *, lowering: bool = False) -> None:
        """Write a model. Raises `StoreError`, `Conflict`; not when ``lowering``: then it is kept dirty."""
        key = (_MODEL, document.name)
        try:
            self._generations[key] = await self._store.put(
                *key, msgspec.msgpack.encode(document), self._generations.get(key, 0)
            )
        except StoreError as exc:
            if not lowering:
                raise
            log.error("the store cannot be written; it is tried again", reason=str(exc))
            self._dirty[document.name] = document
        else:
            self._dirty.pop(document.name, None)
        self.models[document.name] = document
        self.versions.setdefault(document.name, {})

    async def amend(
        self,
        name: str,
        change: Callable[[ModelDocument], ModelDocument],
        *,
        lowering: bool = False,
    ) -> ModelDocument:
        """Save what ``change`` makes of the model as it is when its turn comes (see `save`).

        A flip, a registration and a late write can meet: none of them may undo another.
        """
        async with self._writing.setdefault(name, asyncio.Lock()):
            document = change(self.model(name))
            await self.save(document, lowering=lowering)
        return document

    async def flush(self) -> None:
        """Write what could not be written. Raises `StoreError` while it still cannot."""
        for name in list(self._dirty):
            await self.amend(name, lambda model: model)

    @property
    def dirty(self) -> bool:
        return bool(self._dirty)

    async def add(self, version: VersionDocument) -> None:
        """Register a version of a saved model. Raises `Conflict` if the id was ever used."""
        record = version.record
        document = self.model(record.model)
        if record.version in document.used:
            raise Conflict(
                f"version {record.version!r} of model {record.model!r} existed before: ids are never reused"
            )
        key = (_VERSION, f"{record.model}/{record.version}")
        self._generations[key] = await self._store.put(*key, msgspec.msgpack.encode(version), 0)
        versions = {**self.versions[record.model], record.version: version}
        self.versions[record.model] = dict(
            sorted(versions.items(), key=lambda v: natural_key(v[0]))
        )
        await self.amend(
            record.model,
            lambda model: msgspec.structs.replace(model, used=(*model.used, record.version)),
        )

    async def remove_version(self, model: str, version: str) -> None:
        key = f"{model}/{version}"
        await self._store.delete(_VERSION, key)
        self._generations.pop((_VERSION, key), None)
        self.versions[model].pop(version, None)

    async def remove_model(self, model: str) -> None:
        """Forget its versions; its name and their ids stay used. Raises `StoreError`."""
        gone = removed(self.model(model))
        for version in list(self.versions[model]):
            await self.remove_version(model, version)
        await self.save(gone)
        self.removed[model] = gone
        self.models.pop(model, None)
        self.versions.pop(model, None)
        self._dirty.pop(model, None)

    def digests(self) -> set[str]:
        """Of every registered artifact."""
        return {
            version.record.artifact.digest
            for versions in self.versions.values()
            for version in versions.values()
        }


def _decode(value: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"the store's document of {what} cannot be read: {exc}") from None
