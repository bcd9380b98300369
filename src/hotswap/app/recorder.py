"""The recorder process: takes records and labels out of the workers' rings and keeps them.

It may die at any time: the rings hold what it had not written, and its successor goes on there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from hotswap.app import logs, platform
from hotswap.app.clock import SystemClock
from hotswap.config import Settings
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import RecorderInit, Stop
from hotswap.records.files import FOLDER, shown
from hotswap.records.privacy import Privacy
from hotswap.records.recording import Counts, Recording

#: Records are in the hands of the kernel after so many seconds. Each time the recorder begins with
#: cold caches: once a second takes half the processor time a record of four times.
_DRAIN_SECONDS: Final = 1.0
#: So often it is looked whether a ring is filling up.
_LOOK_SECONDS: Final = 0.25
_COMPACT_SECONDS: Final = 30.0
COUNTS: Final = "recorder.json"


class Recorder:
    """Wires the process."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._init: asyncio.Future[RecorderInit] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._log = structlog.get_logger("hotswap.recorder")

    async def run(self, sock: socket.socket) -> int:
        """Until the supervisor says stop or is gone."""
        channel = await Channel.attach(
            sock, messages.encode, messages.decode, self._heard, self._ended.set
        )
        init = await self._init
        logs.configure(init.log_level, init.log_format, "recorder")
        recording = self._recording(init)
        file = Path(init.runtime_dir) / COUNTS
        compacting: asyncio.Task[None] | None = None
        compacted = drained = self._clock.monotonic()
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _LOOK_SECONDS)
            # Half a look early is near enough; behind its time it would be late by a whole one.
            due = drained + _DRAIN_SECONDS - _LOOK_SECONDS / 2
            if self._clock.monotonic() < due and not recording.pressed():
                continue
            drained = self._clock.monotonic()
            now = self._clock.wall()
            recording.drain(now)
            recording.rotate(now)
            _publish(file, recording.counts)
            busy = compacting is not None and not compacting.done()
            if not busy and self._clock.monotonic() - compacted >= _COMPACT_SECONDS:
                compacted = self._clock.monotonic()
                compacting = asyncio.create_task(asyncio.to_thread(recording.compact, now))
        if compacting is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(compacting), 2.0)
        recording.drain(self._clock.wall())
        recording.close()
        _publish(file, recording.counts)
        channel.close()
        return 0

    def _heard(self, message: object) -> None:
        if isinstance(message, RecorderInit) and not self._init.done():
            self._init.set_result(message)
        elif isinstance(message, Stop):
            self._ended.set()

    def _recording(self, init: RecorderInit) -> Recording:
        spec = init.spec
        privacy = Privacy(spec.columns, spec.redacted, spec.hashed, spec.secret)
        return Recording(
            Path(init.runtime_dir) / "rings",
            Path(spec.root),
            init.run,
            privacy,
            spec.location,
            spec.days,
            spec.most_bytes,
            lambda sentence: self._log.warning(sentence),
            read_counts(Path(init.runtime_dir), init.run),
        )


def _publish(file: Path, counts: Counts) -> None:
    hidden = file.with_name(f".{file.name}")
    with contextlib.suppress(OSError):
        hidden.write_bytes(msgspec.json.encode(counts))
        os.replace(hidden, file)


def read_counts(runtime_dir: Path, run: str = "") -> Counts:
    """What the recorder last said; zeros if it has not yet."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        counts = msgspec.json.decode((runtime_dir / COUNTS).read_bytes(), type=Counts)
        if run in ("", counts.run):
            return counts
    return Counts(run)


def _one_thread() -> None:
    """Columns are made on one processor: the others are for predictions."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def records_told(settings: Settings, counts: Counts) -> dict[str, object]:
    """As people are told of it: where, how much, and why something cannot be written now."""
    if settings.records == "off":
        return {"on": False}
    url = settings.records_url
    return {
        "on": True,
        "root": str(settings.state_dir / FOLDER),
        "location": None if url is None else shown(url),
        "problem": counts.problem or counts.compact_problem,
        "lines": counts.lines,
        "labels": counts.labels,
        "dropped": counts.dropped,
        "failed": counts.failed,
        "damaged": counts.damaged,
    }


async def _run(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)  # the supervisor's business
    return await Recorder().run(socket.socket(fileno=args.channel))


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m hotswap.app.recorder``: started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="hotswap-recorder")
    parser.add_argument("--channel", type=int, required=True)
    args = parser.parse_args(argv)
    platform.die_with_parent()
    platform.yield_to_serving(platform.LOWEST)
    _one_thread()
    # What was imported is not looked through again and again: nothing of it ever goes.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    status = asyncio.run(_run(args))
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
