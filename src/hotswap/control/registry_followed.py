"""One registered model that is followed: what its aliases ask for is done here, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from hotswap.control.interface import Control
from hotswap.control.registry_asking import Asking, RegistrySpec
from hotswap.core.registry_views import FollowedView, Listed
from hotswap.core.registry_wishes import (
    Activate,
    Letter,
    Local,
    Memory,
    Stop,
    Try,
    Wish,
    activated,
    challenge,
    judged,
    key_of,
    next_step,
    stopped,
    told,
    tried,
    wanted,
)
from hotswap.core.rollout_views import RolloutView
from hotswap.core.views import ModelView
from hotswap.errors import (
    Conflict,
    HotswapError,
    LoadError,
    NotFound,
    RegistryRefused,
    Unavailable,
)
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.registry")

WHO: Final = "registry"
_MOST_STEPS: Final = 8
_STOP_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.05
_LONGEST_WAIT: Final = 900.0
_SHORTEST_WAIT: Final = 5.0


class _Failure(msgspec.Struct):
    """A wish that could not be carried out. It is tried again ``at``, ever later."""

    wish: Wish
    reason: str
    count: int
    at: float


class Followed:
    """Carries out what the registry says of one model. One `attend` at a time.

    ``save`` keeps a memory in the store, where ``saved`` says that it is; ``report`` gives a
    rollout's address.
    """

    def __init__(
        self,
        memory: Memory,
        spec: RegistrySpec,
        control: Control,
        asking: Asking,
        clock: Clock,
        save: Callable[[Memory], Awaitable[None]],
        report: Callable[[str], str],
        *,
        saved: bool = False,
    ) -> None:
        self.memory = memory
        self._saved = memory if saved else None
        self.listed: Listed | None = None
        self.problem = ""
        self._spec = spec
        self._control = control
        self._asking = asking
        self._clock = clock
        self._save = save
        self._report = report
        self._failure: _Failure | None = None
        self._notes: tuple[str, ...] = ()
        self._said: dict[str, str] = {}
        self._uncompared = ""

    # --- what is shown

    async def view(self) -> FollowedView:
        """As clients are shown it."""
        memory, listed = self.memory, self.listed or Listed(self.memory.name)
        stable, candidate = wanted(listed, memory)
        model = await self._model()
        aliased = memory.aliased or listed.stable or listed.candidate
        problems = [self.problem, self._failure.reason if self._failure else ""]
        return FollowedView(
            name=memory.name,
            model=memory.model,
            by="alias" if aliased else "stage",
            stable=stable,
            candidate=candidate,
            stable_done=memory.stable,
            candidate_done=memory.candidate,
            rollout=memory.rollout,
            active=model.active if model is not None else None,
            unsent=tuple(
                f"version {letter.version}: {letter.verdict} (rollout {letter.rollout})"
                for letter in memory.letters
            ),
            notes=tuple(note for note in (*self._notes, self._uncompared) if note),
            problems=tuple(problem for problem in problems if problem),
        )

    async def _model(self) -> ModelView | None:
        try:
            return await self._control.model(self.memory.model)
        except NotFound:
            return None

    def _uri(self, version: str) -> str:
        return f"models:/{self.memory.name}/{version}"

    # --- what is done

    async def attend(self, *, reachable: bool) -> None:
        """Tell the registry what was decided here, then do what it asks for. Raises `StoreError`.

        ``reachable``: the registry answers, so that it can be told.
        """
        rollouts = await self._rollouts()
        if rollouts:
            await self._judge(rollouts)
        if self.memory.letters and reachable:
            await self._send()
        for _ in range(_MOST_STEPS):
            if self.listed is None or not await self._step(self.listed):
                return

    async def _rollouts(self) -> list[RolloutView]:
        try:
            return await self._control.rollouts(self.memory.model)
        except NotFound:
            return []

    async def _keep(self, memory: Memory) -> None:
        self.memory = memory  # true at once, whether or not it can be saved
        if memory != self._saved:
            await self._save(memory)
            self._saved = memory

    async def _judge(self, rollouts: list[RolloutView]) -> None:
        model = await self._model()
        versions = model.versions if model is not None else ()
        numbered = [each.version for each in versions if each.uri == self._uri(each.version)]
        active = model.active if model is not None else None
        write = self._spec.write
        await self._keep(judged(self.memory, rollouts, numbered, active, write=write))

    async def _send(self) -> None:
        for letter in self.memory.letters:
            try:
                answer = await self._asking.tell(
                    self.memory.name, letter, self._report(letter.rollout)
                )
            except RegistryRefused as exc:  # saying it again would change nothing
                self._say("tell", f"the registry did not take {_named(letter)}: {exc}")
                await self._keep(told(self.memory, letter, None))
                continue
            except HotswapError as exc:  # an outage, or the process that tells died
                self._say("tell", f"the registry could not be told: {exc}")
                return
            self._said.pop("tell", None)
            moved = answer.stable if answer.moved else None
            if moved is not None and self.listed is not None:
                # Or what was seen before it was told would look like an order.
                self.listed = msgspec.structs.replace(self.listed, stable=moved)
            log.info(
                "the registry was told", model=self.memory.model, version=letter.version,
                verdict=letter.verdict, rollout=letter.rollout, stable=moved, note=answer.note,
            )  # fmt: skip
            await self._keep(told(self.memory, letter, moved))

    async def _step(self, listed: Listed) -> bool:
        """Do the next thing, if there is one and it is due; whether there may be another."""
        step = next_step(listed, self.memory, await self._local())
        await self._keep(step.memory)
        self._notes = step.notes
        self._say("note", "; ".join(step.notes))
        wish = step.wish
        failure = self._failure
        if wish is None or (failure is not None and not _same(failure.wish, wish)):
            self._failure = failure = None
            self._said.pop("wish", None)
        if wish is None or (failure is not None and self._clock.monotonic() < failure.at):
            return False
        try:
            await self._keep(await self._done(wish))
        except HotswapError as exc:
            self._failed(wish, exc)
            return False
        self._failure = None
        self._said.pop("wish", None)
        return True

    def _failed(self, wish: Wish, exc: HotswapError) -> None:
        count = self._failure.count + 1 if self._failure is not None else 1
        wait = max(_SHORTEST_WAIT, self._spec.poll_seconds) * 2 ** min(count - 1, 10)
        if isinstance(exc, Unavailable):  # it may be back at any time
            wait = self._spec.poll_seconds
        wait = min(wait, max(_LONGEST_WAIT, self._spec.poll_seconds))
        reason = f"{_told(wish)}: {exc}"
        self._failure = _Failure(wish, reason, count, self._clock.monotonic() + wait)
        self._say("wish", reason)

    def _say(self, about: str, text: str) -> None:
        """In the log, once."""
        if text and self._said.get(about) != text:
            log.warning("following the registry", model=self.memory.model, reason=text)
        self._said[about] = text

    async def _local(self) -> Local:
        model = await self._model()
        if model is None:
            return Local()
        rollouts = await self._rollouts()
        going = [each for each in rollouts if not each.final and each.phase != "Healthy"]
        return Local(model.active, tuple(going))

    async def _done(self, wish: Wish) -> Memory:
        """Carry it out; what is to be remembered. Raises what an operator would be told."""
        if isinstance(wish, Stop):
            await self._stop(wish)
            return stopped(self.memory)
        await self._registered(wish.version)
        now = await self._still(wish)
        if now is None:
            return self.memory
        if isinstance(now, Activate):
            await self._control.switch(self.memory.model, now.version, replace=now.replace)
            log.info("the registry's stable version is active", model=self.memory.model,
                     version=now.version)  # fmt: skip
            return activated(self.memory, now.version)
        return await self._try(now)

    async def _still(self, wish: Activate | Try) -> Activate | Try | None:
        """The wish as it is now, None if it is another one: to fetch the version may have taken
        minutes, and a rollout that was started by hand meanwhile must not give way.
        """
        listed = self.listed or Listed(self.memory.name)
        now = next_step(listed, self.memory, await self._local()).wish
        return now if isinstance(now, Activate | Try) and _same(now, wish) else None

    async def _try(self, wish: Try) -> Memory:
        memory = self.memory
        key = key_of(memory, wish.version)
        for view in await self._rollouts():
            if view.idempotency_key == key:  # control ended before it could remember
                return tried(memory, wish.version, view.id)
        body = challenge(memory.model, wish.version, self._spec.percentage, self._spec.rollout)
        body |= {
            "on_running": wish.on_running,
            "force": True,  # the alias was moved to it since, whatever became of it before
            "idempotency_key": key,
        }
        view = await self._control.start_rollout(body, who=WHO)
        log.info("the registry's candidate is tried", model=memory.model, version=wish.version,
                 rollout=view.id)  # fmt: skip
        return tried(memory, wish.version, view.id)

    async def _stop(self, wish: Stop) -> None:
        control, loop = self._control, asyncio.get_running_loop()
        await control.command_rollout(wish.rollout, "abort", why=wish.why, who=WHO)
        deadline = loop.time() + _STOP_SECONDS
        while not (view := await control.rollout(wish.rollout)).final:
            if loop.time() > deadline:
                raise Conflict(f"rollout {wish.rollout} is still {view.phase}: try again soon")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _registered(self, version: str) -> None:
        """Have the version here. One that is here already is compared with the registry's.

        Raises `Conflict` if its content changed there.
        """
        self._uncompared = ""
        model = await self._model()
        versions = model.versions if model is not None else ()
        here = next((each for each in versions if each.version == version), None)
        uri = self._uri(version)
        if here is not None and here.uri != uri:
            raise Conflict(
                f"version {version!r} of model {self.memory.model!r} came from elsewhere: it is "
                "not the registry's"
            )
        try:
            await self._control.register(self.memory.model, uri, version=version, who=WHO)
        except (Unavailable, NotFound, LoadError) as exc:
            if here is None:
                raise
            # Its content is bound to its digest since it was registered: that is served.
            self._uncompared = f"version {version} is the registered one; not compared again: {exc}"
            self._say("compare", self._uncompared)


def _same(one: Wish, other: Wish) -> bool:
    """Whether they are about the same thing."""
    if isinstance(one, Stop) or isinstance(other, Stop):
        return one == other
    return type(one) is type(other) and one.version == other.version


def _told(wish: Wish) -> str:
    if isinstance(wish, Activate):
        return f"version {wish.version} is to be the active one, and could not be made so"
    if isinstance(wish, Try):
        return f"version {wish.version} is to be tried, and could not be"
    return f"rollout {wish.rollout} is to end, and could not be ended"


def _named(letter: Letter) -> str:
    return f"the verdict {letter.verdict!r} on version {letter.version}"
