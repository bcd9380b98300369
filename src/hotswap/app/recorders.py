"""The recorder process as the supervisor sees it: always one, unless records are off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import structlog

from hotswap.app.processes import Backoff, Watch, describe_exit, pair, start
from hotswap.config import Settings, credentials
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import RecorderInit, RecordsSpec, Stop
from hotswap.records.files import FOLDER

log = structlog.get_logger("hotswap.supervisor")

_RETRY_SECONDS = 1.0
_SECRET_BYTES = 32


class Recorders:
    """``init`` gives the first message to each; None while records are off."""

    def __init__(
        self, init: Callable[[], RecorderInit | None], child_ended: Callable[[], None]
    ) -> None:
        self._init = init
        self._child_ended = child_ended
        self._backoff = Backoff()
        self._channel: Channel | None = None
        self._stopping = False
        self.watch: Watch | None = None

    async def start(self) -> None:
        """Start one. Raises `OSError`."""
        init = self._init()
        if init is None or self._stopping:
            return
        ours, theirs = pair()
        try:
            elsewhere = init.spec.location is not None
            process = start(
                "hotswap.app.recorder",
                [f"--channel={theirs.fileno()}"],
                [theirs.fileno()],
                credentials() if elsewhere else None,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.watch = Watch(process.pid, self._exited)
        self._channel = channel = await Channel.attach(
            ours, messages.encode, messages.decode, lambda message: None, lambda: None
        )
        channel.send(init)

    @property
    def alive(self) -> bool:
        """Whether one runs."""
        return self.watch is not None and self.watch.alive

    def pids(self) -> set[int]:
        """Its process."""
        return {self.watch.pid} if self.watch is not None and self.watch.alive else set()

    def stop(self) -> None:
        """It writes what the rings still hold, and ends. No other is started."""
        self._stopping = True
        if self._channel is not None:
            self._channel.send(Stop())

    def kill(self) -> None:
        """SIGKILL."""
        self._stopping = True
        if self.watch is not None:
            self.watch.kill()

    def _exited(self, status: int) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._child_ended()
        if self._stopping:
            return
        log.warning("the recorder ended and is started again", how=describe_exit(status))
        loop = asyncio.get_running_loop()
        lived = loop.time() - self.watch.started if self.watch is not None else 0.0
        loop.call_later(self._backoff.delay(lived), self._restart)

    def _restart(self) -> None:
        if not self._stopping:
            task = asyncio.get_running_loop().create_task(self.start())
            task.add_done_callback(self._look_at)

    def _look_at(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the recorder cannot be started; it is tried again", reason=str(error))
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._restart)


def records_spec(settings: Settings) -> RecordsSpec | None:
    """What is to be kept, by the settings; None if nothing is."""
    if settings.records == "off":
        return None
    root = settings.state_dir / FOLDER
    inputs = settings.records_inputs
    return RecordsSpec(
        root=str(root),
        secret=_secret(root),
        share=settings.records_share,
        input_share=settings.records_input_share,
        columns=None if inputs == ("all",) else () if inputs == ("none",) else inputs,
        redacted=settings.records_redact,
        hashed=settings.records_hash,
        location=settings.records_url,
        days=settings.records_days,
        most_bytes=settings.records_mb * 1024 * 1024,
    )


def records_settings(settings: Settings) -> dict[str, object]:
    """All that says what is recorded, and where."""
    names = type(settings).model_fields
    return {name: getattr(settings, name) for name in names if name.startswith("records")}


def _secret(root: Path) -> bytes:
    """With which keys are hashed: of this state directory alone. It stays, if it can be kept."""
    path = root / "secret"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) == _SECRET_BYTES:
                return found
        made = secrets.token_bytes(_SECRET_BYTES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made)
    except OSError as exc:
        log.error(
            "the folder for records cannot be written: what is recorded is lost until it can be",
            folder=str(root), reason=exc.strerror,
        )  # fmt: skip
        return secrets.token_bytes(_SECRET_BYTES)
    return made


__all__ = ["Recorders", "records_settings", "records_spec"]
