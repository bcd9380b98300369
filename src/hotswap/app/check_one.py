"""One version of ``hotswap check``, in a process of its own: ``python -m hotswap.app.check_one``.

It reads a `Request` as JSON from its input and writes JSON lines: `Loading` once the artifact is
hashed and judged and the loading begins, then `Report`. What a model prints goes to the error
output.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import msgspec

from hotswap.core.signature import Signature
from hotswap.core.spec import Ingested, VersionSettings
from hotswap.errors import BadInput, HotswapError


class Request(msgspec.Struct, frozen=True):
    """What to check, and what the operator allows. ``scratch``: an empty folder for copies."""

    path: str
    scratch: str
    trust_code: bool
    trust_digests: tuple[str, ...]
    allow_unvalidated: bool
    load_seconds: float


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """The loading begins, and may take so many seconds."""

    runtime: str
    seconds: float


class Report(msgspec.Struct, frozen=True, tag="report"):
    """``error`` is None for a version that could be served. Seconds; bytes of its own memory."""

    error: str | None
    runtime: str = ""
    seconds: float = 0.0
    memory_bytes: int = 0
    signature: Signature | None = None
    warnings: tuple[str, ...] = ()


Line = Loading | Report


def main() -> None:
    """Check the one version that the input names."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a model that prints must not write between the answers
    sys.stdout = sys.stderr
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)

    def say(line: Line) -> None:
        answers.write(msgspec.json.encode(line) + b"\n")

    runtime = ""
    try:
        ingested = _ingest(request)
        runtime = ingested.artifact.runtime
        say(Loading(runtime, _limit(request, ingested.settings)))
        report = _load(request, ingested)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - loading may raise anything
        report = Report(_describe(exc), runtime)
    say(report)


def _ingest(request: Request) -> Ingested:
    """Judged and hashed where it lies; only an archive is unpacked."""
    from hotswap.control.warming import Policy
    from hotswap.plugins import find_runtime
    from hotswap.sources.ingest import ingest

    path = Path(request.path)
    scratch = Path(request.scratch)
    try:
        ingested = ingest(path, scratch, [path], find_runtime, in_place=True)
    except BadInput:
        ingested = ingest(path, scratch, [path], find_runtime)
    policy = Policy(
        trust_code=request.trust_code,
        trust_digests=request.trust_digests,
        allow_unvalidated=request.allow_unvalidated,
        load_seconds=request.load_seconds,
        memory_budget=0,
        roots=[],
    )
    policy.check_trust(ingested.runs_code, ingested.artifact.digest)
    if ingested.settings.compile == "onnx" and ingested.artifact.runtime != "onnx":
        return _compiled(ingested, request.scratch)
    return ingested


def _compiled(ingested: Ingested, scratch: str) -> Ingested:
    """The version as a server would serve it: as ONNX, proved to answer like the original."""
    from hotswap.app.job import ConvertRequest, convert

    request = ConvertRequest(0, ingested.artifact, ingested.settings, scratch, trusted=True)
    converted, _ = convert(request)
    return converted


def _limit(request: Request, settings: VersionSettings) -> float:
    default = settings.load_seconds == VersionSettings().load_seconds
    return request.load_seconds if default else settings.load_seconds


def _load(request: Request, ingested: Ingested) -> Report:
    from hotswap.app.engine_load import load_version
    from hotswap.plugins import runtimes

    settings = ingested.settings
    runtimes()[ingested.artifact.runtime].preload()  # a server's hosts share what this imports
    before = _own_memory()
    if settings.memory_mb is not None:
        _limit_memory(settings.memory_mb * 1024 * 1024)
    began = time.monotonic()
    _, report = load_version(
        ingested.artifact, settings, None, allow_unvalidated=request.allow_unvalidated
    )
    return Report(
        None,
        ingested.artifact.runtime,
        time.monotonic() - began,
        max(0, _own_memory() - before),
        report.signature,
        report.warnings,
    )


def _own_memory() -> int:
    if sys.platform != "linux":
        return 0
    from hotswap.app.platform import own_memory

    return own_memory(os.getpid())


def _limit_memory(extra_bytes: int) -> None:
    if sys.platform != "win32":
        from hotswap.app.platform import limit_memory

        limit_memory(extra_bytes)


def _describe(exc: BaseException) -> str:
    if isinstance(exc, HotswapError):
        return str(exc)
    if isinstance(exc, MemoryError):
        return "loading it needs more memory than it may have"
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
    sys.stderr.flush()
    os._exit(0)  # a model's own threads must not keep the process
