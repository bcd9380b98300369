"""The job process and its runner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hotswap.control.jobs import JobRunner
from hotswap.errors import BadInput, LoadError, Unavailable, UntrustedCode
from hotswap.sources.manifest import verify
from tests.models import write_breast_cancer

JOB = [sys.executable, "-m", "hotswap.app.job"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = (tmp_path / "models").resolve()
    (models / "v1").mkdir(parents=True)
    write_breast_cancer(models / "v1", "onnx")
    return models


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def jobs() -> AsyncIterator[JobRunner]:
    runner = JobRunner([sys.executable])
    yield runner
    await runner.close()


def pid_of(runner: JobRunner) -> int:
    assert runner._process is not None
    return runner._process.pid


async def test_a_version_is_taken_in(jobs: JobRunner, models: Path, state: Path) -> None:
    """The result is that of the ingestion; the process is used again."""
    taken = await jobs.ingest(
        str(models / "v1"),
        state_dir=state,
        allowed_roots=[models],
        overrides={"changelog": "first", "metadata": {"a": [1, None]}},
    )
    assert taken.artifact.runtime == "onnx"
    assert taken.artifact.entry == "model.onnx"
    assert taken.settings.changelog == "first"
    assert taken.settings.metadata == {"a": [1, None]}
    assert taken.runs_code is None
    verify(taken.artifact)
    first = pid_of(jobs)
    again = await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    assert again.artifact == taken.artifact
    assert pid_of(jobs) == first


async def test_errors_come_back_as_they_were_raised(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Their type and their sentence; the process goes on."""
    with pytest.raises(BadInput, match="outside of the folders"):
        await jobs.ingest("/etc", state_dir=state, allowed_roots=[models])
    (models / "empty").mkdir()
    with pytest.raises(LoadError, match="there is no file in empty"):
        await jobs.ingest(str(models / "empty"), state_dir=state, allowed_roots=[models])
    await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])


async def test_large_manifests_and_progress_come_through(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Answers longer than a pipe holds, and lines between them."""
    for number in range(3000):
        (models / "v1" / f"{number}.bin").write_bytes(b"x")
    (models / "v1" / "large.bin").write_bytes(bytes(20_000_000))
    (models / "v1" / "larger.bin").write_bytes(bytes(20_000_000))
    told: list[tuple[int, int]] = []
    taken = await jobs.ingest(
        str(models / "v1"),
        state_dir=state,
        allowed_roots=[models],
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(taken.artifact.manifest) == 3003
    assert len(told) == 2
    assert told[0][0] < told[1][0] <= told[1][1]


async def test_jobs_run_one_at_a_time_in_one_process(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Jobs that are asked for at once wait for each other, and each gets its own answer."""
    for number in range(2, 8):
        (models / f"v{number}").mkdir()
        (models / f"v{number}" / "model.onnx").write_bytes(b"%d" % number)
    taken = await asyncio.gather(
        *(
            jobs.ingest(str(models / f"v{n}"), state_dir=state, allowed_roots=[models])
            for n in range(2, 8)
        )
    )
    contents = [Path(t.artifact.folder, "model.onnx").read_bytes() for t in taken]
    assert contents == [b"%d" % number for number in range(2, 8)]


async def test_a_process_that_dies_is_named_and_replaced(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Killed in the middle of a job: that job fails, the next one works."""
    (models / "v1" / "large.bin").write_bytes(bytes(20_000_000))

    def die(_done: int, _total: int) -> None:
        os.kill(pid_of(jobs), signal.SIGKILL)

    (models / "v1" / "more.bin").write_bytes(os.urandom(100_000_000))
    with pytest.raises(LoadError, match=r"taking in .*v1.* failed: .*killed by signal 9"):
        await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models], progress=die)
    (models / "v1" / "more.bin").unlink()
    taken = await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    verify(taken.artifact)
    assert len(os.listdir(state / "artifacts")) == 1


async def test_a_process_that_died_between_jobs_is_replaced(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Nobody notices."""
    await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    assert jobs._process is not None
    process = jobs._process
    process.kill()
    await process.wait()
    await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])


async def test_an_idle_process_ends(models: Path, state: Path) -> None:
    """After its time, without anybody asking; the next job starts another."""
    runner = JobRunner([sys.executable], keep_seconds=0.0)
    await runner.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    process = runner._process
    assert process is not None
    assert await asyncio.wait_for(process.wait(), 30) == 0
    await runner.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    await runner.close()


async def test_a_cancelled_job_ends_its_process(jobs: JobRunner, models: Path, state: Path) -> None:
    """The next job gets no answer that was meant for the cancelled one."""
    (models / "v1" / "large.bin").write_bytes(bytes(20_000_000))
    (models / "v1" / "more.bin").write_bytes(bytes(200_000_000))
    running = asyncio.Event()
    task = asyncio.create_task(
        jobs.ingest(
            str(models / "v1"),
            state_dir=state,
            allowed_roots=[models],
            progress=lambda *_: running.set(),
        )
    )
    await running.wait()
    process = jobs._process
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process is not None
    assert await process.wait() == -signal.SIGKILL
    with pytest.raises(BadInput):
        await jobs.ingest("/etc", state_dir=state, allowed_roots=[models])


async def test_a_closed_runner_takes_nothing(jobs: JobRunner, models: Path, state: Path) -> None:
    """And leaves no process."""
    await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    process = jobs._process
    await jobs.close()
    await jobs.close()
    assert process is not None
    assert process.returncode is not None
    with pytest.raises(Unavailable):
        await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])


async def test_an_interpreter_that_is_not_there_is_told(models: Path, state: Path) -> None:
    """One sentence."""
    runner = JobRunner(["/nowhere/python"])
    with pytest.raises(LoadError, match="could not be started"):
        await runner.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    await runner.close()


async def test_a_pickle_is_converted_only_with_trust(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """Converting unpickles: without the operator's word nothing is loaded."""
    (models / "v2").mkdir()
    write_breast_cancer(models / "v2", "joblib")
    (models / "v2" / "rows.json").write_text(json.dumps([[float(n) for n in range(30)]] * 4))
    (models / "v2" / "version.yaml").write_text("samples: rows.json\ninstances: 2")
    taken = await jobs.ingest(str(models / "v2"), state_dir=state, allowed_roots=[models])
    assert taken.runs_code is not None
    with pytest.raises(UntrustedCode, match="trust"):
        await jobs.convert(taken.artifact, taken.settings, state_dir=state)
    converted = await jobs.convert(taken.artifact, taken.settings, state_dir=state, trusted=True)
    artifact = converted.ingested.artifact
    assert (artifact.runtime, artifact.entry) == ("onnx", "model.onnx")
    assert converted.ingested.runs_code is None
    assert converted.ingested.settings.runtime == "onnx"
    assert converted.ingested.settings.instances == 2
    assert converted.report["rows"] == 4
    verify(artifact)
    assert {entry.path for entry in artifact.manifest} == {"model.onnx", "rows.json"}
    assert len(os.listdir(state / "artifacts")) == 2


async def test_a_changed_artifact_is_not_converted(
    jobs: JobRunner, models: Path, state: Path
) -> None:
    """It is verified before anything of it is loaded."""
    taken = await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    copy = Path(taken.artifact.folder, "model.onnx")
    copy.chmod(0o644)
    copy.write_bytes(b"other")
    with pytest.raises(LoadError, match=r"model\.onnx has 5 bytes"):
        await jobs.convert(taken.artifact, taken.settings, state_dir=state, trusted=True)


async def test_a_copy_is_discarded(jobs: JobRunner, models: Path, state: Path) -> None:
    """Once; the second time there is nothing to remove."""
    taken = await jobs.ingest(str(models / "v1"), state_dir=state, allowed_roots=[models])
    assert await jobs.discard(taken.artifact, state_dir=state) is True
    assert os.listdir(state / "artifacts") == []
    assert await jobs.discard(taken.artifact, state_dir=state) is False


def test_the_process_answers_line_by_line_and_ends_with_its_input(
    models: Path, state: Path
) -> None:
    """Requests that cannot be read are answered too."""
    good = {
        "id": 7,
        "kind": "ingest",
        "source": str(models / "v1"),
        "state_dir": str(state),
        "allowed_roots": [str(models)],
    }
    lines = [
        json.dumps(good),
        "not json",
        json.dumps({"id": 8, "kind": "unknown"}),
        json.dumps({**good, "id": 9, "allowed_roots": []}),
        "",
    ]
    done = subprocess.run(
        JOB, input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60
    )
    first, second, third, fourth = map(json.loads, done.stdout.splitlines())
    assert first["id"] == 7
    assert first["ok"]["artifact"]["runtime"] == "onnx"
    assert (second["id"], second["error"]["type"]) == (None, "BadInput")
    assert (third["id"], third["error"]["type"]) == (8, "BadInput")
    assert (fourth["id"], fourth["error"]["type"]) == (9, "BadInput")


def test_the_process_ends_when_nobody_reads_its_answers(tmp_path: Path) -> None:
    """Its parent was killed: it does not stay, although its input is still open elsewhere."""
    reading, writing = os.pipe()
    process = subprocess.Popen(JOB, stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=30) == 1
    os.close(writing)


def test_the_process_starts_light() -> None:
    """Nothing that is slow to import is imported before it is needed."""
    script = (
        "import sys, hotswap.app.job\n"
        "heavy = {'numpy', 'yaml', 'sqlalchemy', 'pydantic', 'sklearn', 'onnx', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
