"""The control process: store, service, sources, admin API. It may die; predictions go on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform as python_platform
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hotswap.app import logs, platform
from hotswap.app.clock import SystemClock
from hotswap.app.recorder import read_counts, records_told
from hotswap.config import Settings, child_environment, fetching_environment
from hotswap.control.fetching import Fetching, FetchPolicy
from hotswap.control.jobs import KEEP_SECONDS, JobRunner
from hotswap.control.node import Node
from hotswap.control.recorded import Recorded
from hotswap.control.registry_asking import JobAsking, RegistrySpec
from hotswap.control.registry_sync import RegistrySync
from hotswap.control.service import Service
from hotswap.control.warming import Policy
from hotswap.errors import ConfigError, HotswapError, StoreError
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import Counted, Snapshot, Stop, Tripped, Unready
from hotswap.ports import Clock, MetricSource, Store
from hotswap.records.files import FOLDER
from hotswap.sources.folder import FolderSource

_TICK_SECONDS = 1.0
_STORE_RETRY_SECONDS = 2.0
#: How long the process that speaks with a registry is kept: its libraries take seconds to import.
_REGISTRY_SECONDS = 3600.0


def _release() -> str:
    try:
        return version("hotswap")
    except PackageNotFoundError:
        return "0"


def make_store(settings: Settings) -> Store:
    """The store that the settings name."""
    if settings.store == "memory":
        from hotswap.stores.memory import MemoryStore

        return MemoryStore()
    from hotswap.stores.sqlite import SqliteStore

    return SqliteStore(settings.state_dir / "hotswap.db")


def make_sources(settings: Settings) -> dict[str, MetricSource]:
    """Where guardrails may read numbers, by the name that rollouts give it."""
    if settings.prometheus_url is None:
        return {}
    from hotswap.sources.prometheus import PrometheusSource

    return {
        "prometheus": PrometheusSource(
            settings.prometheus_url,
            token=settings.prometheus_secret(),
            timeout=settings.prometheus_timeout_seconds,
        )
    }


def make_recorded(settings: Settings, snapshot: Snapshot) -> Recorded | None:
    """Where records are and who works on them; None where none are kept."""
    if settings.records == "off":
        return None
    runtime = Path(snapshot.runtime_dir)
    elsewhere = settings.records_url is not None
    inputs = settings.records_inputs
    environment = fetching_environment if elsewhere else child_environment
    return Recorded(
        settings.state_dir / FOLDER,
        settings.records_url,
        JobRunner([sys.executable], environment=environment),
        JobRunner([sys.executable], environment=environment),
        lambda: read_counts(runtime, snapshot.run).watermark,
        lambda: msgspec.to_builtins(read_counts(runtime, snapshot.run)),
        lambda: JobRunner([sys.executable]),
        None if inputs == ("all",) else () if inputs == ("none",) else inputs,
        settings.records_redact,
        settings.records_hash,
        settings.label_maturity_seconds,
        settings.records_days,
    )


def make_policy(settings: Settings, runtime_dir: str = "") -> Policy:
    """What the operator allows."""
    roots = [str(settings.state_dir), *([runtime_dir] if runtime_dir else [])]
    return Policy(
        trust_code=settings.trust_code,
        trust_digests=settings.trust_digests,
        allow_unvalidated=settings.allow_unvalidated,
        load_seconds=settings.load_seconds,
        memory_budget=settings.memory_budget(),
        roots=roots,
    )


def make_fetch_policy(settings: Settings) -> FetchPolicy:
    """What may be fetched from elsewhere."""
    return FetchPolicy(
        prefixes=settings.allow_uri,
        tracking_uri=settings.tracking_uri,
        most_bytes=settings.fetch_mb * 1024 * 1024,
        most_files=settings.fetch_files,
        seconds=settings.fetch_seconds,
    )


def make_sync(
    settings: Settings, service: Service, store: Store, jobs: JobRunner, clock: Clock
) -> RegistrySync | None:
    """What follows the model registry that the settings name, if they name one."""
    if settings.registry is None or settings.tracking_uri is None:
        return None
    spec = RegistrySpec(
        uri=settings.tracking_uri,
        kind=settings.registry,
        names=settings.registry_models,
        poll_seconds=settings.registry_poll_seconds,
        stable_alias=settings.registry_stable_alias,
        candidate_alias=settings.registry_candidate_alias,
        percentage=settings.registry_percentage,
        rollout=settings.registry_rollout,
        write=settings.registry_write,
    )
    asking = JobAsking(jobs, spec)
    return RegistrySync(service, asking, store, clock, spec, lambda: secrets.randbelow(1000) / 1000)


class ControlProcess:
    """Wires the process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._channel: Channel | None = None
        self._snapshot: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._node: Node | None = None
        self._service: Service | None = None
        #: what was said right after the snapshot, to a service that is not made yet
        self._early: list[Counted | Tripped] = []
        self._server: Any = None
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._clock = SystemClock()

    async def run(self, sock: socket.socket) -> int:
        """Until the supervisor says stop or is gone."""
        self._channel = await Channel.attach(
            sock, messages.encode, messages.decode, self._heard, self._ended.set
        )
        snapshot = await self._snapshot
        settings = Settings.from_json(snapshot.settings.decode())
        logs.configure(settings.log_level, settings.log_format, "control")
        log = structlog.get_logger("hotswap.control")
        jobs = JobRunner([sys.executable])
        keep = _REGISTRY_SECONDS if settings.registry else KEEP_SECONDS
        fetch_jobs = JobRunner([sys.executable], keep, fetching_environment)
        store = make_store(settings)
        sources = make_sources(settings)
        recorded = make_recorded(settings, snapshot)
        service = self._make(settings, snapshot, store, jobs, sources, fetch_jobs, recorded)
        ask_jobs = JobRunner([sys.executable], keep, fetching_environment)
        service.sync = make_sync(settings, service, store, ask_jobs, self._clock)
        self._tasks = [
            asyncio.create_task(self._serve(settings, service)),
            asyncio.create_task(self._work(settings, service)),
            asyncio.create_task(service.run_lazy_loads()),
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_done)
        await self._ended.wait()
        log.debug("control ends")
        if self._server is not None:
            self._server.should_exit = True
            self._server.force_exit = True
        for task in self._tasks[1:]:
            task.cancel()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._tasks[0], 2.0)
        await jobs.close()
        await fetch_jobs.close()
        await ask_jobs.close()
        if recorded is not None:
            await recorded.jobs.close()
            await recorded.ticks.close()
        for source in sources.values():
            await source.close()
        with contextlib.suppress(StoreError):
            await store.close()
        self._channel.close()
        return 0

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            structlog.get_logger("hotswap.control").error(
                "control failed", exc_info=task.exception()
            )
            self._ended.set()  # the supervisor starts a new one

    def _heard(self, message: object) -> None:
        if isinstance(message, Snapshot):
            if not self._snapshot.done():
                assert self._channel is not None
                # Made here, in the same step: no message after the snapshot may be missed.
                self._node = Node(self._channel, message)
                self._snapshot.set_result(message)
        elif isinstance(message, Stop):
            self._ended.set()
        elif isinstance(message, Unready):
            if self._service is not None:
                self._service.drain()
        elif self._service is None and isinstance(message, Counted | Tripped):
            self._early.append(message)  # evidence that the control before did not save
        elif self._node is not None:
            self._node.heard(message)

    def _make(
        self,
        settings: Settings,
        snapshot: Snapshot,
        store: Store,
        jobs: JobRunner,
        sources: dict[str, MetricSource],
        fetch_jobs: JobRunner,
        recorded: Recorded | None,
    ) -> Service:
        assert self._node is not None
        roots = tuple(
            Path(os.path.realpath(root))
            for root in (*((settings.models,) if settings.models else ()), *settings.allow_root)
        )
        service = Service(
            node=self._node,
            store=store,
            jobs=jobs,
            policy=make_policy(settings, snapshot.runtime_dir),
            clock=self._clock,
            state_dir=settings.state_dir,
            roots=roots,
            keep_warm_seconds=settings.keep_warm_seconds,
            rollout_defaults=settings.rollout_defaults(),
            readiness=settings.readiness,
            memory_of=platform.own_memory,
            info=lambda: self._info(settings, snapshot),
            sources=sources,
            fetching=Fetching(fetch_jobs, make_fetch_policy(settings), settings.state_dir, roots),
            recorded=recorded,
            drift=settings.drift(),
        )
        self._service = service
        for message in self._early:
            self._node.heard(message)
        self._early.clear()
        return service

    def _info(self, settings: Settings, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "version": _release(),
            "data": _url(snapshot.data_address),
            "control": _url(snapshot.control_address),
            "models": str(settings.models) if settings.models else None,
            "store": settings.store,
            "supervisor_pid": snapshot.supervisor_pid,
            "pid": os.getpid(),
            "uptime_seconds": round(self._clock.wall() - snapshot.started_at, 3),
            "python": python_platform.python_version(),
            "records": records_told(
                settings, read_counts(Path(snapshot.runtime_dir), snapshot.run)
            ),
        }

    async def _serve(self, settings: Settings, service: Service) -> None:
        import uvicorn

        from hotswap.server.admin import create_app
        from hotswap.server.admin_registry import WebhookDoor
        from hotswap.server.control_protocol import control_protocol
        from hotswap.web import quality

        hosts = (settings.control_host, *settings.allowed_hosts)
        secret = settings.webhook_secret()
        door = None if secret is None else WebhookDoor(secret, self._clock.wall)
        app = create_app(
            service, token=settings.secret(), allowed_hosts=hosts, webhook=door,
            write_report=quality.write,
        )  # fmt: skip
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=1, http=control_protocol(settings.limits()), ws="none",
            proxy_headers=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._server = server
        await server._serve([self._listener])

    async def _work(self, settings: Settings, service: Service) -> None:
        """Open the store (again and again if it must be), restore, then watch and tick."""
        log = structlog.get_logger("hotswap.control")
        said = ""
        while True:
            try:
                await service.open()
                break
            except StoreError as exc:
                if str(exc) != said:
                    said = str(exc)
                    log.error("the store cannot be opened; what is served goes on", reason=said)
                await asyncio.sleep(_STORE_RETRY_SECONDS)
        await service.restore()
        ticking = [
            asyncio.create_task(self._tick(service)),
            asyncio.create_task(service.run_rollouts()),
        ]
        if service.sync is not None:
            ticking.append(asyncio.create_task(service.sync.run()))
        if service.drift_watch is not None:
            ticking.append(asyncio.create_task(service.drift_watch.run()))
        for task in ticking:
            task.add_done_callback(self._task_done)
        try:
            await self._watch(settings, service)
        finally:
            for task in ticking:
                task.cancel()

    async def _tick(self, service: Service) -> None:
        log = structlog.get_logger("hotswap.control")
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await service.tick()
            except HotswapError as exc:
                log.warning("a check failed; it is made again", reason=str(exc))

    async def _watch(self, settings: Settings, service: Service) -> None:
        log = structlog.get_logger("hotswap.control")
        if settings.models is None:
            await service.adopt([], first=True)
            await asyncio.Event().wait()
            return
        source = FolderSource(
            settings.models, settings.poll_seconds, settings.settle_seconds, self._clock
        )
        first = True
        try:
            async for found in source.watch():
                pending = source.last.pending
                for problem in source.last.problems:
                    log.warning("something in the models folder cannot be served",
                                path=problem.path, reason=problem.reason)  # fmt: skip
                try:
                    await service.adopt([(f.model, f.version, f.path) for f in found], first=first)
                except StoreError as exc:
                    log.error(
                        "versions could not be registered; it is tried again", reason=str(exc)
                    )
                # At the first start what was still settling counts as there.
                first = first and pending > 0
        except ConfigError as exc:
            log.error("the models folder cannot be watched", reason=str(exc))
            await asyncio.Event().wait()


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _run(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)  # the supervisor's business
    process = ControlProcess(socket.socket(fileno=args.listener))
    return await process.run(socket.socket(fileno=args.channel))


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m hotswap.app.control``: started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="hotswap-control")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listener", type=int, required=True)
    args = parser.parse_args(argv)
    platform.die_with_parent()
    platform.yield_to_serving()
    status = asyncio.run(_run(args))
    # Everything is closed: taking the interpreter down module by module would only delay the end.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
