"""``hotswap check``: load and validate every version of a models folder, and serve nothing.

Each version is loaded in a process of its own, one after another, so that one that crashes, hangs
or eats its memory says something about itself alone.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from hotswap.app.check_one import Line, Loading, Report, Request
from hotswap.app.clock import SystemClock
from hotswap.config import Settings, child_environment
from hotswap.core.adaptation import adapt
from hotswap.core.naming import natural_key
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import SignatureMismatch
from hotswap.sources.folder import FolderSource

#: Most time until a version is hashed, judged, and its library imported.
_BEFORE_SECONDS: Final = 600.0
_LAST_WORDS: Final = 300


class CheckResult(msgspec.Struct, frozen=True):
    """One version that was checked.

    ``message`` is all of it in a line: what the version is, or what is wrong. ``error`` is None
    if it could be served. ``signature`` in words; ``memory_bytes`` beyond what its library
    takes (0 where the platform does not tell); ``seconds`` that loading and validating took.
    ``warnings`` are what would not keep it from being loaded.
    """

    model: str
    version: str
    ok: bool
    message: str
    seconds: float = 0.0
    runtime: str = ""
    memory_bytes: int = 0
    signature: str = ""
    error: str | None = None
    warnings: tuple[str, ...] = ()


def check_models(path: Path, settings: Settings, on_result: Callable[[CheckResult], None]) -> bool:
    """Check every version in ``path``; whether all could be served. ``on_result`` hears of each.

    What lies in the folder and is no version is a result too. The first version of a model that
    can be served owns its signature; one that does not fit it has a warning that says how.
    Raises `ConfigError` if the folder cannot be read.
    """
    source = FolderSource(path.absolute(), 1.0, 0.0, SystemClock())
    look = source.look()
    good = True
    for problem in look.problems:
        model, _, version = problem.path.partition("/")
        reason = problem.reason
        on_result(CheckResult(model, version, False, reason, error=reason))
        good = False
    publics: dict[str, Signature] = {}
    for found in sorted(look.found, key=lambda f: (f.model, natural_key(f.version))):
        report = _check_one(found.path, settings)
        result = _result(found.model, found.version, report, publics.get(found.model))
        if report.error is None and report.signature is not None:
            publics.setdefault(found.model, report.signature)
        good = good and result.ok
        on_result(result)
    return good


def _result(model: str, version: str, report: Report, public: Signature | None) -> CheckResult:
    if report.error is not None:
        return CheckResult(
            model, version, False, report.error, report.seconds, report.runtime, error=report.error
        )
    assert report.signature is not None
    warnings = report.warnings
    if public is not None and not report.signature.unvalidated and not public.unvalidated:
        try:
            adapt(report.signature, public)
        except SignatureMismatch as exc:
            warnings = (*warnings, str(exc))
    signature = describe(report.signature)
    parts = [f"{report.runtime}: {signature}"]
    if report.memory_bytes:
        parts.append(f"{report.memory_bytes / 2**20:.1f} MiB")
    parts += [f"warning: {warning}" for warning in warnings]
    return CheckResult(
        model, version, True, "; ".join(parts), report.seconds, report.runtime,
        report.memory_bytes, signature, None, warnings,
    )  # fmt: skip


def describe(signature: Signature) -> str:
    """A signature in words.

    >>> describe(Signature((TensorSpec("x", "FP64", (-1, 30)),), (TensorSpec("predict", "INT64", (-1,)),)))
    'x FP64[30] → predict INT64'
    """
    inputs = ", ".join(_tensor(spec) for spec in signature.inputs) or "unknown inputs"
    outputs = ", ".join(_tensor(spec) for spec in signature.outputs) or "unknown outputs"
    return f"{inputs} → {outputs}"


def _tensor(spec: TensorSpec) -> str:
    sizes = ",".join("any" if size < 0 else str(size) for size in spec.shape[1:])
    return f"{spec.name} {spec.datatype}" + (f"[{sizes}]" if sizes else "")


def _check_one(path: Path, settings: Settings) -> Report:
    """Have a process check it, within its time. How the process ended is what is wrong, if it did."""
    with tempfile.TemporaryDirectory(prefix="hscheck-") as scratch, _errors() as stderr:
        request = Request(
            str(path), scratch, settings.trust_code, tuple(settings.trust_digests),
            settings.allow_unvalidated, settings.load_seconds,
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "hotswap.app.check_one"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=child_environment(),
        )
        try:
            return _follow(process, msgspec.json.encode(request), stderr)
        finally:
            process.kill()
            process.wait()


def _errors() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _follow(process: subprocess.Popen[bytes], request: bytes, stderr: IO[bytes]) -> Report:
    lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
    assert process.stdin is not None
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    try:
        process.stdin.write(request)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended at once: its end says why
    runtime, limit = "", _BEFORE_SECONDS
    began = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=max(0.0, began + limit - time.monotonic()))
        except queue.Empty:
            took = time.monotonic() - began
            what = "loading" if runtime else "hashing it"
            return Report(f"{what} took longer than {limit:g} s", runtime, took)
        if isinstance(line, Report):
            return line
        if line is None:
            took = time.monotonic() - began
            return Report(_ended(process.wait(), stderr), runtime, took)
        runtime, limit = line.runtime, line.seconds
        began = time.monotonic()


def _read(stdout: IO[bytes], lines: queue.SimpleQueue[Line | None]) -> None:
    with stdout:
        for raw in _whole_lines(stdout):
            try:
                lines.put(msgspec.json.decode(raw, type=Line))
            except msgspec.MsgspecError:
                break
    lines.put(None)


def _whole_lines(stdout: IO[bytes]) -> Iterator[bytes]:
    for raw in stdout:
        if raw.endswith(b"\n"):
            yield raw


def _ended(status: int, stderr: IO[bytes]) -> str:
    """How a process ended that gave no report."""
    how = f"ended its process with status {status}"
    if status < 0:
        try:
            how = f"crashed its process ({signal.Signals(-status).name})"
        except ValueError:
            how = f"crashed its process (signal {-status})"
        if -status == getattr(signal, "SIGKILL", 0):
            how += ", perhaps for memory"
    stderr.seek(0)
    said = stderr.read().decode(errors="replace").strip().splitlines()
    words = f": {said[-1].strip()[:_LAST_WORDS]}" if said else ""
    return f"loading it {how}{words}"


__all__ = ["CheckResult", "Loading", "check_models", "describe"]
