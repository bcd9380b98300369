"""What an operator tells a rollout to do: promote, pause, resume, abort, retry, skip."""

from __future__ import annotations

import asyncio
import secrets

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_effects import Effects, falls
from hotswap.control.rollout_news import News
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_shown import Shown
from hotswap.core.commands import COMMANDS, commanded, refusal
from hotswap.core.journal import Record
from hotswap.core.rollout import EXPOSED, Rollout, analysed
from hotswap.core.rollout_views import RolloutView
from hotswap.errors import BadInput, StoreError
from hotswap.ports import Clock


class Given(msgspec.Struct, frozen=True):
    """A command as an operator gives it. ``generation`` None: whatever it is."""

    command: str
    generation: int | None
    key: str
    force: bool
    why: str
    who: str


class Commands:
    """Saved before they are carried out, but for an abort."""

    def __init__(
        self,
        catalogue: Catalogue,
        saving: Saving,
        clock: Clock,
        book: Book,
        observer: Observer,
        effects: Effects,
        shown: Shown,
        news: News,
    ) -> None:
        self._catalogue = catalogue
        self._saving = saving
        self._clock = clock
        self._book = book
        self._observer = observer
        self._effects = effects
        self._shown = shown
        self._news = news

    async def command(
        self,
        id: str,
        command: str,
        *,
        generation: int | None = None,
        idempotency_key: str | None = None,
        force: bool = False,
        why: str = "",
        who: str = "",
    ) -> RolloutView:
        """See `Control.command_rollout`."""
        run = self._book.find(id)
        if command not in COMMANDS:
            raise BadInput(f"there is no command {command!r}: use {', '.join(COMMANDS)}")
        given = Given(command, generation, idempotency_key or "", force, why, who)
        # Shielded: a client that goes away does not undo what it asked for.
        return await asyncio.shield(asyncio.ensure_future(self._obey(run, given)))

    async def _obey(self, run: Run, given: Given) -> RolloutView:
        command, status = given.command, run.status
        mine = object()
        if (
            command == "abort"
            and given.generation in (None, status.generation)
            and status.state in (*EXPOSED, "preparing", "rolling_back")
        ):
            # At once: whoever holds the lock may wait for the store.
            run.barred.add(mine)
            self._effects.lower(run)
        try:
            async with run.lock:
                await self._commanded(run, given)
        finally:
            run.barred.discard(mine)
        self._news.hurry()
        return self._shown.view(run)

    async def _commanded(self, run: Run, given: Given) -> None:
        command, before, key = given.command, run.rollout, given.key
        if key and key in run.document.commands:
            if run.document.commands[key] != command:
                raise refusal(before, command, "this idempotency key was used for another command")
            return
        if given.generation not in (None, before.status.generation):
            raise refusal(before, command, f"generation {given.generation} is not the present one")
        if command == "retry":
            self._check_retry(run)
        seen = self._observer.observe(run)
        analysis = analysed(before, seen)
        after = commanded(before, command, analysis, force=given.force, why=given.why)
        if after is before:
            return
        if command == "retry":
            after = self._another_attempt(run, after)
        record = Record(before, after.status, seen, force=given.force)
        saved = await self._saving.record(
            run, msgspec.structs.replace(after, updated_at=self._clock.wall()), "commanded", record,
            must=command != "abort", who=given.who, command=command, why=given.why, key=key,
        )  # fmt: skip
        if not saved:
            raise StoreError(f"the command was not carried out: {self._saving.outage}")
        if command == "retry":
            run.forget()
            model, version = run.rollout.spec.model, run.rollout.spec.version
            run.note(restarts=self._observer.restarts(model, version))
            self._book.current[model] = run
        self._news.tell(run)
        if falls(run.status):
            self._effects.lower(run)

    def _check_retry(self, run: Run) -> None:
        name = run.rollout.spec.model
        current = self._book.current.get(name)
        if current is not None and current is not run and not current.rollout.final:
            if current.status.state == "watching":
                why = f"rollout {current.rollout.id} of the model is watched"
                raise refusal(run.rollout, "retry", why)
            raise refusal(run.rollout, "retry", f"rollout {current.rollout.id} of the model runs")
        document = self._catalogue.model(name)
        self._catalogue.version(name, run.rollout.spec.version)
        active = document.active
        if active is None or active == run.rollout.spec.version:
            raise refusal(run.rollout, "retry", f"{active or 'no version'} is active")

    def _another_attempt(self, run: Run, after: Rollout) -> Rollout:
        document = self._catalogue.model(run.rollout.spec.model)
        assert document.active is not None
        seed = run.rollout.spec.seed
        fresh = secrets.token_hex(8) if seed is None else f"{seed}.{after.status.attempt}"
        status = msgspec.structs.replace(after.status, salt=fresh)
        return msgspec.structs.replace(
            after,
            status=status,
            stable=document.active,
            instances=self._catalogue.instances(document.name, document.active),
        )
