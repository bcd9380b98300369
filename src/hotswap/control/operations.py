"""Switches and loads as operators see them: their state, their reason, their answers again."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from hotswap.core.views import OperationView, SwitchView
from hotswap.errors import Conflict, NotFound, StoreError
from hotswap.ports import Clock, Store

log = structlog.get_logger("hotswap.control")

_KIND = "operation"
_MOST = 500


class _Document(msgspec.Struct, frozen=True):
    view: OperationView
    key: str | None = None


class Operations:
    """The last few hundred. A store that cannot be written costs only their survival."""

    def __init__(
        self, store: Store, clock: Clock, tell: Callable[..., None] = lambda *_, **__: None
    ) -> None:
        self._tell = tell
        self._store = store
        self._clock = clock
        self._views: OrderedDict[str, OperationView] = OrderedDict()
        self._keys: dict[str, str] = {}
        self._dropped: list[str] = []  # what the store may still have

    async def load(self) -> None:
        """Read them; what was under way when control died is marked."""
        documents = []
        for _, value, _ in await self._store.scan(_KIND):
            try:
                documents.append(msgspec.msgpack.decode(value, type=_Document))
            except msgspec.MsgspecError:
                continue
        documents.sort(key=lambda document: document.view.created_at)
        self._dropped += [document.view.id for document in documents[:-_MOST]]
        for document in documents[-_MOST:]:
            view = document.view
            if view.state in ("preparing", "flipping"):
                view = msgspec.structs.replace(
                    view, state="failed", reason="control was restarted before it was done",
                    finished_at=self._clock.wall(),
                )  # fmt: skip
            self._views[view.id] = view
            if document.key is not None:
                self._keys[document.key] = view.id
        await self._forget()

    def begin(
        self, kind: str, model: str, version: str, from_version: str | None, key: str | None
    ) -> OperationView:
        """A new one, preparing."""
        view = OperationView(
            id=secrets.token_hex(6),
            kind=kind,
            model=model,
            version=version,
            state="preparing",
            from_version=from_version,
            created_at=self._clock.wall(),
        )
        self._views[view.id] = view
        if key is not None:
            self._keys[key] = view.id
        while len(self._views) > _MOST:
            oldest, _ = self._views.popitem(last=False)
            self._keys = {key: id for key, id in self._keys.items() if id != oldest}
            self._dropped.append(oldest)
        return view

    async def update(self, id: str, *, save: bool = True, **changes: Any) -> OperationView:
        """Change and save it; in memory alone if not ``save``."""
        view = msgspec.structs.replace(self._views[id], **changes)
        if view.state in ("done", "failed", "superseded", "aborted"):
            view = msgspec.structs.replace(view, finished_at=self._clock.wall())
            self._ended(view)
        self._views[id] = view
        if not save:
            return view
        key = next((k for k, v in self._keys.items() if v == id), None)
        try:
            await self._store.put(_KIND, id, msgspec.msgpack.encode(_Document(view, key)))
        except StoreError as exc:
            log.warning("an operation could not be saved", operation=id, reason=str(exc))
        else:
            await self._forget()
        return view

    def _ended(self, view: OperationView) -> None:
        """Tell listeners how it ended: a flip as a switch, all else as an operation."""
        flip = view.kind in ("switch", "rollback")
        done = {"switch": "answers now", "rollback": "answers again"}.get(view.kind, view.kind)
        how = done if view.state == "done" else f"{view.kind} {view.state}: {view.reason}"
        self._tell(
            "switch" if flip else "operation", view.model, f"{view.version}: {how}",
            operation=view.id, what=view.kind, state=view.state, version=view.version,
            from_version=view.from_version,
        )  # fmt: skip

    async def _forget(self) -> None:
        """Delete from the store what is no longer among the last; what fails is tried again."""
        while self._dropped:
            id = self._dropped.pop()
            try:
                await self._store.delete(_KIND, id)
            except StoreError as exc:
                self._dropped.append(id)
                log.warning("an old operation could not be deleted", operation=id, reason=str(exc))
                return

    def repeated(
        self, key: str | None, kind: str, model: str, version: str | None
    ) -> SwitchView | None:
        """The answer that this idempotency key had, if it was given before.

        None too for what has failed: that may be tried again. Raises `Conflict` if the key was
        given with something else, or with what is not done.
        """
        view = self._views.get(self._keys.get(key, "")) if key is not None else None
        if view is None:
            return None
        if (view.kind, view.model) != (kind, model) or version not in (None, view.version):
            raise Conflict(
                f"the idempotency key {key!r} was used for a {view.kind} of {view.model!r} to {view.version!r}"
            )
        if view.state == "failed":
            return None
        if view.state != "done" or view.revision is None:
            raise Conflict(
                f"operation {view.id} with this idempotency key is {view.state}: {view.reason}"
            )
        return SwitchView(
            view.id, view.from_version, view.version, view.revision,
            view.prepare_ms or 0.0, view.flip_ms or 0.0,
            view.publish_ms or 0.0,
        )  # fmt: skip

    def all(self) -> list[OperationView]:
        """Newest first."""
        return list(reversed(self._views.values()))

    def get(self, id: str) -> OperationView:
        """Raises `NotFound`."""
        try:
            return self._views[id]
        except KeyError:
            raise NotFound(f"there is no operation {id!r}") from None
