"""Getting a version's hosts warm, once however many ask, within the memory budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from hotswap.control.node import Node
from hotswap.core.eviction import Resident, victims
from hotswap.core.lifecycle import VersionDocument
from hotswap.core.signature import Signature
from hotswap.core.spec import VersionSettings
from hotswap.errors import HotswapError, OutOfMemory, UntrustedCode
from hotswap.ipc.messages import HostSpec, HostState

log = structlog.get_logger("hotswap.control")

#: Versions that load at the same time; hosts that serve need processors meanwhile.
_AT_ONCE = 8
#: A loaded artifact takes about this many times its size on disk; measured again once it is loaded.
_GROWTH = 2


class Policy:
    """What the operator allows."""

    def __init__(
        self,
        *,
        trust_code: bool,
        trust_digests: Sequence[str],
        allow_unvalidated: bool,
        load_seconds: float,
        memory_budget: int,
        roots: Sequence[str],
    ) -> None:
        self.trust_code = trust_code
        self.trust_digests = frozenset(trust_digests)
        self.allow_unvalidated = allow_unvalidated
        self.load_seconds = load_seconds
        self.memory_budget = memory_budget
        self.roots = tuple(roots)

    def check_trust(self, runs_code: str | None, digest: str) -> None:
        """Raise `UntrustedCode` if the artifact can run code and nobody allowed it."""
        if runs_code is not None and not self.trust_code and digest not in self.trust_digests:
            raise UntrustedCode(runs_code)


class Warming:
    """Starts hosts. ``evict`` unloads a version and returns once its memory is on its way back."""

    def __init__(
        self,
        node: Node,
        policy: Policy,
        residents: Callable[[], list[Resident]],
        evict: Callable[[str, str], object],
        now: Callable[[], float],
    ) -> None:
        self.policy = policy
        self._node = node
        self._residents = residents
        self._evict = evict
        self._now = now
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._twinning = asyncio.Lock()
        self._least: dict[tuple[str, str], int] = {}
        self._tasks: dict[tuple[str, str, bool], asyncio.Task[list[HostState]]] = {}
        #: (model, version) -> why it could not be loaded, until it could
        self.failures: dict[tuple[str, str], str] = {}
        self.failed_at: dict[tuple[str, str], float] = {}

    def loading(self, model: str, version: str) -> bool:
        return any(key[:2] == (model, version) for key in self._tasks)

    async def warm(
        self, version: VersionDocument, public: Signature | None, least: int = 0
    ) -> list[HostState]:
        """Hosts that can answer; started if there are none, or fewer than its settings and
        ``least`` ask for. Raises what the version raised.

        Hosts that were loaded before the model had a signature, and serve another one than
        ``public``, are replaced by such as are adapted to it, or refused. None: any will do.
        """
        record = version.record
        wanted = (record.model, record.version)
        self._least[wanted] = max(least, self._least.get(wanted, 0))
        ready = self._node.warm(record.model, record.version)
        coming = self._node.starting(record.model, record.version)
        if not coming and not self._missing(version, ready) and _serve(ready, public):
            return ready
        key = (record.model, record.version, public is None)
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._in_turn(version, public))
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        # Shielded: one who stops waiting must not take it from the others who wait.
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, str, bool], done: asyncio.Task[list[HostState]]) -> None:
        if self._tasks.get(key) is done:
            del self._tasks[key]
        if not done.cancelled():
            done.exception()  # whoever waited was told

    def give_up(self, model: str, version: str) -> None:
        """Nobody waits for this load any more: end it, so that the next one is a new one."""
        for key, task in list(self._tasks.items()):
            if key[:2] == (model, version):
                del self._tasks[key]
                task.cancel()

    async def _in_turn(self, version: VersionDocument, public: Signature | None) -> list[HostState]:
        record = version.record
        async with self._places:
            await self._join(version)
            ready = self._node.warm(record.model, record.version)
            if not ready or not _serve(ready, public):
                started = await self._start(version, public, self._missing(version, []))
                for state in ready:
                    self._node.leave(state.spec)
                return started
            missing = self._missing(version, ready)
            if missing:
                try:
                    ready = [*ready, *await self._start(version, public, missing)]
                except HotswapError as exc:  # those that are there can answer
                    log.warning(
                        "a version has fewer instances than it should", model=record.model,
                        version=record.version, reason=str(exc),
                    )  # fmt: skip
            self.failures.pop((record.model, record.version), None)
            return ready

    def forget_least(self, model: str, version: str) -> None:
        """No rollout asks for more instances than the version's settings any more."""
        self._least.pop((model, version), None)

    def _missing(self, version: VersionDocument, ready: Sequence[HostState]) -> list[int]:
        """Which instances of a version are not there."""
        record = version.record
        least = self._least.get((record.model, record.version), 0)
        there = {state.spec.instance for state in ready}
        return [each for each in range(max(record.settings.instances, least)) if each not in there]

    async def twins(
        self, version: VersionDocument, public: Signature | None, count: int
    ) -> list[HostState]:
        """``count`` more hosts of the stable version, for a rollout to compare its candidate with."""
        record = version.record
        async with self._twinning:
            starts = (
                self._node.start(spec)
                for spec in self._node.starting(record.model, record.version, twin=True)
            )
            await asyncio.gather(*starts, return_exceptions=True)
            ready = self._node.warm(record.model, record.version, twin=True)
            there = {state.spec.instance for state in ready}
            missing = [each for each in range(count) if each not in there]
            if missing:
                ready = [*ready, *await self._start(version, public, missing, twin=True)]
            return ready

    async def _start(
        self,
        version: VersionDocument,
        public: Signature | None,
        instances: Sequence[int],
        twin: bool = False,
    ) -> list[HostState]:
        record = version.record
        key = (record.model, record.version)
        specs: list[HostSpec] = []
        try:
            self.policy.check_trust(version.runs_code, record.artifact.digest)
            self._make_room(version, len(instances))
            starts = []
            for instance in instances:
                spec = self._spec(version, instance, public, twin)
                specs.append(spec)
                starts.append(asyncio.ensure_future(self._node.start(spec)))
                await asyncio.sleep(0)  # its slot and name are taken before the next are chosen
            try:
                states = await asyncio.gather(*starts)
            finally:
                for start in starts:
                    start.cancel()
        except BaseException as exc:
            for spec in specs:
                self._node.stop(spec.host)
            if not isinstance(exc, asyncio.CancelledError):
                # Shown where the version is named already.
                said = f"version {key[1]!r} of model {key[0]!r} could not be loaded: "
                self.failures[key] = str(exc).removeprefix(said)
                self.failed_at[key] = self._now()
            raise
        self.failures.pop(key, None)
        self.failed_at.pop(key, None)
        log.info(
            "a version is warm", model=record.model, version=record.version,
            load_seconds=round(max(s.report.load_seconds for s in states if s.report), 3),
        )  # fmt: skip
        return list(states)

    async def _join(self, version: VersionDocument) -> None:
        """Wait for hosts that are coming up already since a restart."""
        specs = self._node.starting(version.record.model, version.record.version)
        starts = (self._node.start(spec) for spec in specs)
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.warning(
                    "a host of the last run did not come up; a new one is started",
                    reason=str(failure),
                )

    def _spec(
        self, version: VersionDocument, instance: int, public: Signature | None, twin: bool
    ) -> HostSpec:
        record = version.record
        name, slot = self._node.new_host()
        settings = record.settings
        default = settings.load_seconds == VersionSettings().load_seconds
        return HostSpec(
            host=name,
            model=record.model,
            version=record.version,
            instance=instance,
            slot=slot,
            artifact=record.artifact,
            settings=settings,
            public=public,
            allow_unvalidated=self.policy.allow_unvalidated,
            load_seconds=self.policy.load_seconds if default else settings.load_seconds,
            runs_code=version.runs_code is not None,
            roots=self.policy.roots,
            twin=twin,
        )

    def _make_room(self, version: VersionDocument, instances: int) -> None:
        """Evict what has to go. Raises `OutOfMemory` naming the bytes."""
        record = version.record
        size = sum(entry.size for entry in record.artifact.manifest)
        needed = size * _GROWTH * instances
        residents = self._residents()
        gone = victims(residents, self.policy.memory_budget, needed, self._now())
        if gone is None:
            held = sum(resident.memory_bytes for resident in residents)
            raise OutOfMemory(
                f"version {record.version!r} of model {record.model!r} needs about {needed >> 20} MiB; "
                f"{held >> 20} of {self.policy.memory_budget >> 20} MiB are held by versions that "
                "are in use: unload something or raise --memory-budget-mb"
            )
        for resident in gone:
            log.info("a version is evicted", model=resident.model, version=resident.version)
            self._evict(resident.model, resident.version)


def _serve(ready: Sequence[HostState], public: Signature | None) -> bool:
    return public is None or all(serves(state, public) for state in ready)


def serves(state: HostState, public: Signature) -> bool:
    """Whether a host that is warm serves the model's public signature."""
    told = state.report.signature if state.report is not None else public
    return (told.inputs, told.outputs, told.kind) == (public.inputs, public.outputs, public.kind)
