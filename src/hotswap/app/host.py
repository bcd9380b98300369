"""A host process: loads one version, proves that it answers, then serves it."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from hotswap.app import platform
from hotswap.errors import HotswapError
from hotswap.ipc import messages
from hotswap.ipc.channel import BlockingChannel
from hotswap.ipc.messages import Failed, HostSpec, Live, LoadReport, Ready, Stop
from hotswap.ipc.words import Health
from hotswap.ports import Executor
from hotswap.serving.validation import Validated, validate

_MESSAGE = 2_000


class Describe:
    """Turns a model's exception into what clients may see: type and message, known roots rewritten.

    >>> spec_roots = Describe({"/srv/models/fraud/v1": "fraud/v1"})
    >>> spec_roots(ValueError("no /srv/models/fraud/v1/model.onnx"))
    'ValueError: no fraud/v1/model.onnx'
    """

    def __init__(self, roots: dict[str, str]) -> None:
        known = {root: name for root, name in roots.items() if len(root) > 1}
        self._names = known
        ordered = sorted(known, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(root) for root in ordered) or r"(?!)")

    def text(self, text: str) -> str:
        """The text with known roots rewritten and every other absolute path (no URL) reduced to its name."""
        text = self._pattern.sub(lambda found: self._names[found.group()], text)
        text = re.sub(r"(?<![\w<>.])(?<!:/)/(?:[\w.+@%~-]+/)+([\w.+@%~-]+)", r"\1", text)
        return text if len(text) <= _MESSAGE else text[:_MESSAGE] + "…"

    def __call__(self, exc: BaseException) -> str:
        try:
            message = self.text(str(exc))
        except Exception:  # a model's exception may not even be able to say what it is
            message = ""
        if isinstance(exc, HotswapError):
            return message
        name = type(exc).__name__
        return f"{name}: {message}" if message else name


def _describe_for(spec: HostSpec, runtime_dir: str) -> Describe:
    shown = f"{spec.model}/{spec.version}"
    roots = {
        spec.artifact.folder: shown,
        runtime_dir: shown,
        sys.prefix: "python",
        sys.base_prefix: "python",
    }
    roots.update(dict.fromkeys(spec.roots, shown))
    home = os.path.expanduser("~")
    if home not in ("~", "/"):
        roots[home] = "~"
    return Describe(roots)


def run(channel_fd: int, slot: int, health: Health, runtime_dir: str) -> int:
    """The life of a host, in its own process, from the fork to its exit status."""
    platform.die_with_parent()
    platform.no_core_dumps()
    sys.dont_write_bytecode = True  # what lies beside an artifact must stay what was hashed
    # The terminal's signals are the supervisor's business: it tells hosts when to go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = BlockingChannel(socket.socket(fileno=channel_fd), messages.encode, messages.decode)
    try:
        live = channel.receive()
    except (EOFError, OSError):
        return 0
    assert isinstance(live, Live)
    spec = live.spec
    health.start(slot, live.incarnation)
    describe = _describe_for(spec, runtime_dir)
    address = Path(runtime_dir) / f"h{spec.host}"
    # A restart is waited for by requests; a first start is not.
    urgent = live.incarnation > 1
    try:
        with contextlib.nullcontext() if urgent else platform.background():
            listener, validated, report = prepare(spec, address)
    except BaseException as exc:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            channel.send(_failure(spec, exc, describe))
        return 1
    try:
        channel.send(Ready(report))
    except OSError:
        return 0
    _serve(spec, live.incarnation, slot, listener, channel, validated.executor, health, describe)
    return 0


def _failure(spec: HostSpec, exc: BaseException, describe: Describe) -> Failed:
    """What is said of a load that failed; whatever wraps it, want of memory is told as that."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, MemoryError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None and spec.settings.memory_mb is not None:
        limit = f"it needs more than its memory_mb of {spec.settings.memory_mb} MiB"
        return Failed(limit, "MemoryError")
    return Failed(describe(exc), type(exc if cause is None else cause).__name__)


def prepare(spec: HostSpec, address: Path) -> tuple[socket.socket, Validated, LoadReport]:
    """Verify, load, validate, warm up, listen. Raises whatever is wrong with the version."""
    from hotswap.sources.manifest import verify

    began = time.monotonic()
    if spec.settings.memory_mb is not None:
        platform.limit_memory(spec.settings.memory_mb * 1024 * 1024)
    verify(spec.artifact)
    validated, platform_name = load(spec)
    if spec.settings.memory_mb is not None:
        # From here on the supervisor weighs it, and replaces a host that leaks past its limit;
        # this one only bounds what a single call can take before that.
        platform.limit_memory(spec.settings.memory_mb * 1024 * 1024 * 3 // 2)
    gc.collect()
    gc.freeze()
    load_seconds = time.monotonic() - began - validated.warm_seconds
    report = LoadReport(
        signature=validated.signature,
        platform=platform_name,
        load_seconds=load_seconds,
        warm_seconds=validated.warm_seconds,
        steady_seconds=validated.steady_seconds,
        memory_bytes=platform.own_memory(os.getpid()),
        warnings=validated.warnings,
    )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        address.unlink()
    listener.bind(str(address))
    listener.listen(128)
    return listener, validated, report


def load(spec: HostSpec) -> tuple[Validated, str]:
    """The version loaded and validated, with its platform's name."""
    from hotswap.plugins import runtimes
    from hotswap.runtimes.samples import generated_samples, load_samples

    runtime = runtimes()[spec.artifact.runtime]
    executor = runtime.load(spec.artifact, spec.settings)
    folder = Path(spec.artifact.folder)
    samples = load_samples(folder, spec.settings, executor.signature)
    if samples is None:
        samples = generated_samples(executor.signature, 4)
    validated = validate(
        executor,
        samples,
        spec.public,
        finite=spec.settings.finite,
        allow_unvalidated=spec.allow_unvalidated,
    )
    return validated, runtime.platform


def _serve(
    spec: HostSpec,
    incarnation: int,
    slot: int,
    listener: socket.socket,
    channel: BlockingChannel,
    executor: Executor,
    health: Health,
    describe: Describe,
) -> None:
    from hotswap.serving.hostloop import HostLoop

    def on_control() -> bool:
        """Whether to go on: the supervisor only ever says stop, or is gone."""
        try:
            return not isinstance(channel.receive(), Stop)
        except (EOFError, OSError):
            return False

    loop = HostLoop(
        host=spec.host,
        incarnation=incarnation,
        slot=slot,
        listener=listener,
        control_fd=channel.sock.fileno(),
        on_control=on_control,
        executor=executor,
        health=health,
        batch_rows=spec.settings.batch_rows,
        finite=spec.settings.finite,
        describe=describe,
    )
    loop.run()
    executor.close()
