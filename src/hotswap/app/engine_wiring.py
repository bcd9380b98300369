"""Joins an engine's parts, as `hotswap.app.control` joins a server's."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hotswap.app.engine_control import ControlThread
from hotswap.app.engine_hosts import EngineHosts, in_python
from hotswap.app.engine_service import EngineService, ThreadJobs
from hotswap.app.folders import locked, runtime_root
from hotswap.config import machine_memory
from hotswap.control.node import Node
from hotswap.control.warming import Policy
from hotswap.core.spec import Limits
from hotswap.errors import ConfigError
from hotswap.ipc.messages import Snapshot
from hotswap.ports import Clock, Store
from hotswap.serving.inline import InlinePlane
from hotswap.serving.inline_split import SplitLoop
from hotswap.sources.folder import FolderSource

log = structlog.get_logger("hotswap.engine")

ISOLATIONS = ("process", "thread")


class EngineSettings(msgspec.Struct, frozen=True):
    """What `hotswap.Engine` was given. Times in seconds."""

    models: Path | None
    trust_code: bool
    trust_digests: tuple[str, ...]
    allow_unvalidated: bool
    state_dir: Path | None
    keep_warm_seconds: float
    load_seconds: float
    memory_budget_mb: int | None
    poll_seconds: float
    settle_seconds: float
    grace_seconds: float
    isolation: str | None = None

    def check(self) -> None:
        """Raise `ConfigError` for a setting out of range, or that cannot be kept here."""
        if self.isolation not in (None, *ISOLATIONS):
            raise ConfigError(f"isolation must be 'process' or 'thread', not {self.isolation!r}")
        why = no_processes()
        if self.isolation == "process" and why:
            raise ConfigError(f"isolation='process' is not possible here: {why}")
        for name in ("load_seconds", "poll_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be a positive number of seconds")
        for name in ("keep_warm_seconds", "settle_seconds", "grace_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be zero or a positive number of seconds")
        if self.memory_budget_mb is not None and self.memory_budget_mb < 1:
            raise ConfigError("memory_budget_mb must be at least 1")


def no_processes() -> str:
    """Why candidates cannot be run in processes of their own here; "" if they can."""
    if sys.platform == "win32":
        return "Windows has no such processes: use isolation='thread'"
    if not sys.executable:
        return "the program has no Python interpreter to start: use isolation='thread'"
    return ""


class EnginePolicy(Policy):
    """The server's policy, with errors that name the engine's arguments."""

    def check_trust(self, runs_code: str | None, digest: str) -> None:
        super().check_trust(in_python(runs_code) if runs_code is not None else None, digest)


def wire(
    settings: EngineSettings,
    limits: Limits,
    plane: InlinePlane,
    clock: Clock,
    held: contextlib.ExitStack,
) -> ControlThread:
    """Control with its thread running. ``held`` is closed when the engine has stopped.

    Raises `ConfigError` if the state directory cannot be used.
    """
    log_by_the_standard_library()
    apart = _candidates_apart(settings)
    roots = (tempfile.gettempdir(), "/tmp")
    temporary = tempfile.TemporaryDirectory(
        prefix="hsengine", dir=runtime_root(roots) if apart else None, ignore_cleanup_errors=True
    )
    own = Path(held.enter_context(temporary))
    (own / "tally").mkdir()  # empty: the plane counts in memory
    store: Store
    if settings.state_dir is not None:
        from hotswap.stores.sqlite import SqliteStore

        folder = settings.state_dir
        held.enter_context(locked(folder))
        store = SqliteStore(folder / "hotswap.db")
    else:
        from hotswap.stores.memory import MemoryStore

        folder = own
        store = MemoryStore()
    control = ControlThread()
    hosts = EngineHosts(plane, control.loop, limits.queue_rows, str(own) if apart else None)
    split = plane.split = SplitLoop(
        block_of=plane.counters,
        on_counted=hosts.counted,
        on_tripped=hosts.tripped,
        queue_rows=limits.queue_rows,
        on_thread=not apart,
        wall_ms=plane.wall_ms,
    )
    held.callback(split.stop)
    node = Node(
        hosts,
        Snapshot(
            hosts=(), tables=(), workers=1, started=False, nursery=(), runtime_dir=str(own),
            settings=b"", started_at=clock.wall(), supervisor_pid=os.getpid(),
            data_address=("", 0), control_address=("", 0), run=secrets.token_hex(8),
        ),
    )  # fmt: skip
    hosts.heard = node.heard
    jobs = ThreadJobs()
    budget = settings.memory_budget_mb
    service = control.service = EngineService(
        plane,
        apart=apart,
        node=node,
        store=store,
        jobs=jobs,
        policy=EnginePolicy(
            trust_code=settings.trust_code,
            trust_digests=settings.trust_digests,
            allow_unvalidated=settings.allow_unvalidated,
            load_seconds=settings.load_seconds,
            memory_budget=machine_memory() * 4 // 5 if budget is None else budget << 20,
            roots=[],
        ),
        clock=clock,
        state_dir=folder,
        roots=(),
        keep_warm_seconds=settings.keep_warm_seconds,
        memory_of=hosts.memory_of,
        info=lambda: {"pid": os.getpid(), "python": sys.version.split()[0]},
    )
    hosts.is_candidate = service.is_candidate
    control.node, control.hosts, control.jobs = node, hosts, jobs
    control.close_store = store.close
    if settings.models is not None:
        control.source = FolderSource(
            settings.models, settings.poll_seconds, settings.settle_seconds, clock
        )
    return control


def _candidates_apart(settings: EngineSettings) -> bool:
    """Whether candidates run in processes; why not is logged where nobody chose it."""
    why = no_processes()
    if settings.isolation is None and why:
        log.warning("candidates of rollouts run within this process", reason=why)
    return settings.isolation != "thread" and not why


#: What `logging` calls its own: it refuses them as names of anything else.
_ITS_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def spare_names(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What is logged, under names that `logging` accepts.

    >>> spare_names(None, "info", {"event": "rollout", "message": "at 5 %"})
    {'event': 'rollout', 'message_': 'at 5 %'}
    """
    return {f"{name}_" if name in _ITS_OWN else name: value for name, value in event.items()}


def log_by_the_standard_library() -> None:
    """What is logged goes to `logging`, as a library's should, unless the program says otherwise."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                spare_names,
                structlog.stdlib.render_to_log_kwargs,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
