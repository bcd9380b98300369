"""A worker process: one HTTP front end, no model."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog

from hotswap.app import logs, platform
from hotswap.app.clock import SystemClock
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import (
    Ack,
    Beat,
    Counted,
    Drained,
    Listening,
    Push,
    Started,
    Stop,
    Tripped,
    Unready,
    Wanted,
    WorkerInit,
    WorkerSpec,
)
from hotswap.ipc.ring import Ring
from hotswap.ipc.words import HEALTH_WORDS, MODELS, Epoch, Health, Words
from hotswap.server.app import DataApp
from hotswap.server.feedback import TakeLabels
from hotswap.server.run import DataServer
from hotswap.serving.notes import Notes
from hotswap.serving.plane import WorkerPlane

_TICK = 0.05
_BEATS = 20


class Worker:
    """Wires the channel, the plane and the HTTP server of one process."""

    def __init__(self, listener: socket.socket, epoch: Epoch, health: Health) -> None:
        self._listener = listener
        self._epoch = epoch
        self._health = health
        self._clock = SystemClock()
        self._channel: Channel | None = None
        self._plane: WorkerPlane | None = None
        self._server: DataServer | None = None
        self._ended = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._early: list[object] = []

    async def run(self, sock: socket.socket) -> int:
        """Until the supervisor says stop or is gone."""
        self._channel = await Channel.attach(
            sock, messages.encode, messages.decode, self._heard, self._ended.set
        )
        beats = 0
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _TICK)
            if self._plane is not None:
                self._plane.tick(int(self._clock.wall() * 1000))
            beats += 1
            if beats % _BEATS == 0:
                self._channel.send(Beat())
        if self._server is not None:
            await self._server.close()
        if self._plane is not None and self._plane.notes is not None:
            self._plane.notes.finish()
        self._channel.close()
        await asyncio.sleep(0)
        return 0

    def _heard(self, message: object) -> None:
        if isinstance(message, WorkerInit):
            self._opening = asyncio.get_running_loop().create_task(self._open(message.spec))
            self._opening.add_done_callback(self._opened)
        elif self._plane is None:
            self._early.append(message)  # nothing that is said while it opens may be lost
        elif isinstance(message, Push):
            self._plane.install(message.table)
        elif isinstance(message, Started):
            self._plane.started = True
        elif isinstance(message, Unready):
            self._drain()
        elif isinstance(message, Stop) and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(message.grace))

    def _opened(self, task: asyncio.Task[None]) -> None:
        if task.exception() is not None:
            structlog.get_logger("hotswap.worker").error(
                "the worker could not start", exc_info=task.exception()
            )
            self._ended.set()

    async def _open(self, spec: WorkerSpec) -> None:
        logs.configure(spec.log_level, spec.log_format, f"worker-{spec.slot}")
        channel = self._channel
        assert channel is not None
        plane = WorkerPlane(
            runtime_dir=spec.runtime_dir,
            slot=spec.slot,
            workers=spec.workers,
            queue_rows=spec.limits.queue_rows,
            readiness=spec.readiness,
            epoch=self._epoch,
            health=self._health,
            tally=spec.tally,
            wall_ms=int(self._clock.wall() * 1000),
            on_ack=lambda index, revision: channel.send(Ack(index, revision)),
            on_drained=lambda index, revision: channel.send(Drained(index, revision)),
            on_wanted=lambda model, version: channel.send(Wanted(model, version)),
            worker=spec.name,
            on_counted=lambda windows: channel.send(Counted(windows)),
            on_tripped=lambda *said: channel.send(Tripped(*said)),
            notes=self._notes(spec),
        )
        for table in spec.tables:
            plane.install(table)
        plane.started = spec.started
        self._plane = plane
        for message in self._early:
            self._heard(message)
        log = structlog.get_logger("hotswap.access")

        def access(method: str, path: str, status: int, seconds: float, request_id: str) -> None:
            log.info(
                "request", method=method, path=path, status=status,
                ms=round(seconds * 1000, 3), request_id=request_id,
            )  # fmt: skip

        app = DataApp(
            plane,
            spec.limits,
            token=spec.token,
            access_log=access if spec.access_log else None,
            labels=self._labels(spec, plane.notes),
        )
        self._server = DataServer(app)
        await self._server.start([self._listener])
        if plane.draining:
            self._drain()
        channel.send(Listening())

    def _notes(self, spec: WorkerSpec) -> Notes | None:
        """What is noted for the recorder; nothing if records are off or there is no room for a ring."""
        kept = spec.records
        if kept is None:
            return None
        try:
            ring = Ring.create(Path(spec.runtime_dir) / "rings" / spec.tally)
        except OSError as exc:
            structlog.get_logger("hotswap.worker").error(
                "there is no room for a ring: this worker's requests are not recorded",
                reason=exc.strerror or str(exc),
            )
            return None
        return Notes(
            ring,
            secret=kept.secret,
            wall=self._clock.wall,
            coin=partial(secrets.randbits, 64),
            share=kept.share,
            input_share=0.0 if kept.columns == () else kept.input_share,
        )

    def _labels(self, spec: WorkerSpec, notes: Notes | None) -> TakeLabels | None:
        """Takes labels in; None if records are off. Without a ring there is room for none."""
        if notes is not None:
            return notes.label
        return None if spec.records is None else lambda labels: False

    def _drain(self) -> None:
        if self._plane is not None:
            self._plane.draining = True
        if self._server is not None:
            self._server.begin_drain()

    async def _stop(self, grace: float) -> None:
        """Answer what is here, each answer closing its connection; then go."""
        server = self._server
        if server is not None:
            await self._drain_connections(server)
            deadline = time.monotonic() + grace
            # Clients see `Connection: close` with their next answer. One that is idle has to be
            # closed at some time; a moment of quiet makes it unlikely that it was just sending.
            patience = min(grace, 5.0 if grace > 60 else 0.25)
            quiet = time.monotonic()
            while server.connections and time.monotonic() < deadline:
                if server.inflight:
                    quiet = time.monotonic()
                elif time.monotonic() - quiet > patience:
                    break
                await asyncio.sleep(0.01)
            await server.wait_idle(max(0.0, deadline - time.monotonic()))
        self._ended.set()

    async def _drain_connections(self, server: DataServer) -> None:
        server.begin_drain()
        last = self._listener.dup()
        last.setblocking(False)
        server.stop_accepting()
        # Closing the listener resets whoever is still in its queue: take them in first, to the
        # very last, who is answered as the others are.
        with last, contextlib.suppress(OSError):  # nobody is left
            while True:
                await server.adopt(last.accept()[0])


async def _run(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)  # the supervisor's business
    worker = Worker(
        socket.socket(fileno=args.listener),
        Epoch(Words(args.epoch, MODELS)),
        Health(Words(args.health, HEALTH_WORDS)),
    )
    return await worker.run(socket.socket(fileno=args.channel))


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m hotswap.app.worker``: started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="hotswap-worker")
    for name in ("channel", "listener", "epoch", "health"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args(argv)
    platform.die_with_parent()
    if sys.platform == "win32":
        raise SystemExit("workers need Linux or macOS")
    # Requests leave no cycles behind: the collector would only stop the loop for nothing.
    import gc

    import uvloop

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return uvloop.run(_run(args))


if __name__ == "__main__":
    raise SystemExit(main())
