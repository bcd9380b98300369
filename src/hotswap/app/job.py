"""A short-lived process for what would block control: hashing, copying, unpacking, converting.

``python -m hotswap.app.job`` reads one JSON object a line from its input and writes one a line::

    {"id": 1, "kind": "ingest", "source": "...", "state_dir": "...", "allowed_roots": [...]}
    {"id": 1, "progress": [1048576, 20971520]}
    {"id": 1, "ok": {"artifact": {...}, "settings": {...}, ...}}
    {"id": 2, "error": {"type": "LoadError", "message": "..."}}

Requests are done in order. It exits when its input ends, and at once if nobody reads its answers
any more. What a library prints goes to the error output.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from hotswap.app.job_records import (
    CohortRequest,
    DriftRequest,
    ReportRequest,
    count_cohort,
    look_for_drift,
    measure_quality,
)
from hotswap.app.job_remote import FetchRequest, LookRequest, TellRequest, fetch, look, tell
from hotswap.app.job_replay import (
    DropRequest,
    JudgeRequest,
    ReplayRequest,
    RunRequest,
    TakeRequest,
    replay_job,
)
from hotswap.core.spec import Artifact, Ingested, Json, VersionSettings
from hotswap.errors import BadInput, HotswapError, LoadError, UntrustedCode

if TYPE_CHECKING:
    from hotswap.runtimes.convert import ParityReport

_NICE: Final = 10  # predictions go first
_PROGRESS_BYTES: Final = 16 * 1024 * 1024


class IngestRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="ingest"):
    """Take a version in: see `hotswap.sources.ingest.ingest`."""

    id: int
    source: str
    state_dir: str
    allowed_roots: list[str]
    runtime: str | None = None
    overrides: Json = {}
    in_place: bool = False


class ConvertRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="convert"):
    """Convert a version to ONNX and take the result in: see `hotswap.runtimes.convert`."""

    id: int
    artifact: Artifact
    settings: VersionSettings
    state_dir: str
    trusted: bool = False


class DiscardRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="discard"):
    """Remove the copy of an artifact: see `hotswap.sources.ingest.discard`."""

    id: int
    artifact: Artifact
    state_dir: str


Request = (
    IngestRequest | ConvertRequest | DiscardRequest | FetchRequest | LookRequest | TellRequest
    | CohortRequest | DriftRequest | ReportRequest
    | TakeRequest | RunRequest | JudgeRequest | DropRequest
)  # fmt: skip


def main() -> None:
    """Serve requests until the input ends."""
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not write between the answers
    sys.stdout = sys.stderr
    watched = threading.Thread(target=_exit_without_reader, args=(answers.fileno(),), daemon=True)
    watched.start()
    for line in sys.stdin.buffer:
        if line.strip():
            _answer(line, answers)


def _exit_without_reader(descriptor: int) -> None:
    """End the process, in the middle of a job too, once the other end of its output is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()  # with no events asked for, only an error or a hang-up returns
    os._exit(1)


def _answer(line: bytes, answers: IO[bytes]) -> None:
    request_id: Any = None
    try:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            request_id = _id_of(line)
            raise BadInput(f"the job's request cannot be read: {error}") from error
        request_id = request.id
        if isinstance(request, IngestRequest):
            result: object = _ingest(request, answers)
        elif isinstance(request, ConvertRequest):
            taken, report = convert(request)
            result = {"ingested": taken, "report": report}
        elif isinstance(request, CohortRequest):
            result = count_cohort(request)
        elif isinstance(request, DriftRequest):
            result = look_for_drift(request)
        elif isinstance(request, ReportRequest):
            result = measure_quality(request)
        elif isinstance(request, ReplayRequest):
            result = replay_job(request, _telling(request.id, answers))
        elif isinstance(request, FetchRequest):
            result = fetch(request, _progress(request.id, answers))
        elif isinstance(request, LookRequest):
            result = look(request)
        elif isinstance(request, TellRequest):
            result = tell(request)
        else:
            result = _discard(request)
        answer: dict[str, object] = {"id": request_id, "ok": result}
    except HotswapError as error:
        answer = {"id": request_id, "error": _described(type(error).__name__, str(error))}
    except MemoryError:
        answer = {
            "id": request_id,
            "error": _described("OutOfMemory", "there was not enough memory for this job"),
        }
    except Exception as error:  # noqa: BLE001 (the caller is told; this process serves on)
        import traceback

        traceback.print_exc()
        text = f"the job failed: {type(error).__name__}: {error}"
        answer = {"id": request_id, "error": _described("LoadError", text)}
    _write(answers, answer)


def _ingest(request: IngestRequest, answers: IO[bytes]) -> object:
    from hotswap.plugins import find_runtime
    from hotswap.sources.ingest import ingest

    return ingest(
        request.source,
        Path(request.state_dir),
        [Path(root) for root in request.allowed_roots],
        find_runtime,
        wanted_runtime=request.runtime,
        overrides=request.overrides,
        in_place=request.in_place,
        progress=_progress(request.id, answers),
    )


def _progress(id: int, answers: IO[bytes]) -> Callable[[int, int], None]:
    """Tells of bytes done, once in a while."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done - told >= _PROGRESS_BYTES:
            told = done
            _write(answers, {"id": id, "progress": [done, total]})

    return progress


def _telling(id: int, answers: IO[bytes]) -> Callable[[int, int], None]:
    """Tells of everything done."""
    return lambda done, total: _write(answers, {"id": id, "progress": [done, total]})


def convert(request: ConvertRequest) -> tuple[Ingested, ParityReport]:
    """The version as ONNX, taken into ``state_dir``, and how near it is to the original.

    Raises `LoadError` if it cannot be converted or answers otherwise, `UntrustedCode` if to load
    the original would run its code and it is not ``trusted``.
    """
    from hotswap.plugins import find_runtime, runtimes
    from hotswap.runtimes.convert import to_onnx
    from hotswap.sources.ingest import ingest, staging
    from hotswap.sources.manifest import verify

    artifact, settings = request.artifact, request.settings
    original = Path(artifact.folder)
    verify(artifact)
    if artifact.runtime not in runtimes():
        raise LoadError(f"there is no runtime {artifact.runtime!r} here: install what offers it")
    why = runtimes()[artifact.runtime].runs_code(original, artifact.entry)
    if why is not None and not request.trusted:
        raise UntrustedCode(why)
    with staging(Path(request.state_dir), "onnx") as folder:
        report = to_onnx(artifact, settings, None, folder / "model.onnx")
        if isinstance(settings.samples, str):
            shutil.copyfile(original / settings.samples, folder / settings.samples)
        overrides = msgspec.to_builtins(settings) | {"runtime": "onnx", "in_place": False}
        taken = ingest(folder, Path(request.state_dir), [folder], find_runtime, overrides=overrides)
    return taken, report


def _discard(request: DiscardRequest) -> object:
    from hotswap.sources.ingest import discard

    return discard(request.artifact, Path(request.state_dir))


def _id_of(line: bytes) -> object:
    try:
        return msgspec.json.decode(line).get("id")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return None


def _described(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "message": message}


def _write(answers: IO[bytes], answer: object) -> None:
    data = memoryview(msgspec.json.encode(answer) + b"\n")
    while data:
        data = data[answers.write(data) or 0 :]


if __name__ == "__main__":
    main()
