"""A real model over recorded inputs, in the processes that do it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hotswap.app.job_replay import Taken
from hotswap.control.jobs import JobRunner
from hotswap.core.quality_views import Quality
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Ingested
from hotswap.errors import DigestMismatch, LoadError, NotFound, UntrustedCode
from hotswap.records import dataset, replay_store, schema
from hotswap.records.replay import Done
from tests.models import breast_cancer, pipeline, write_breast_cancer

START = 1_700_000_000
ROWS = 300
PUBLIC = Signature(
    (TensorSpec("x", "FP64", (-1, 30)),),
    (TensorSpec("predict", "INT64", (-1,)), TensorSpec("predict_proba", "FP64", (-1, 2))),
)


@pytest.fixture
async def jobs() -> AsyncIterator[JobRunner]:
    runner = JobRunner([sys.executable])
    yield runner
    await runner.close()


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """What the model of seed 0 answered."""
    root = tmp_path / "records"
    rows, _ = breast_cancer()
    rows = rows[:ROWS]
    model = pipeline(0)
    values: dict[str, Any] = {
        "time": [(START + at) * 1_000_000 for at in range(ROWS)],
        "request_id": [f"r{at}" for at in range(ROWS)],
        "row": [0] * ROWS,
        "rows": [1] * ROWS,
        "version": ["v1"] * ROWS,
        "outcome": ["ok"] * ROWS,
        "latency_us": [900] * ROWS,
    }
    made = {
        field.name: pa.array(values.get(field.name, [None] * ROWS), field.type)
        for field in schema.fixed()
    }
    made |= {f"input_x{at}": pa.array(rows[:, at]) for at in range(30)}
    made["output_predict"] = pa.array(model.predict(rows))
    made["output_predict_proba"] = pa.array(model.predict_proba(rows).tolist())
    dataset.write_parquet(root, "m", pa.table(made))
    return root


async def taken_in(jobs: JobRunner, tmp_path: Path, form: str, seed: int = 1) -> Ingested:
    folder = (tmp_path / "models" / f"{form}-{seed}").resolve()
    folder.mkdir(parents=True)
    write_breast_cancer(folder, form, seed)
    if form == "python":
        (folder / "version.yaml").write_text(f"samples: [{[0.0] * 30}]\n")
    return await jobs.ingest(
        str(folder), state_dir=tmp_path / "state", allowed_roots=[folder.parent]
    )


async def take(jobs: JobRunner, root: Path, **more: Any) -> Taken:
    request: dict[str, Any] = {
        "kind": "replay_take", "root": str(root), "location": None, "model": "m", "version": "v2",
        "signature": PUBLIC, "since": None, "max_rows": 1000, "by": None, "kept": {},
        "now": START + 1000,
    }  # fmt: skip
    return await jobs.run("taking", request | more, Taken)


def run_request(taken: Taken, ingested: Ingested, **more: Any) -> dict[str, object]:
    return {
        "kind": "replay_run", "taken": taken, "model": "m", "version": "v2",
        "artifact": ingested.artifact, "settings": ingested.settings, "public": PUBLIC,
        "roots": [], "trusted": False, "allow_unvalidated": False,
    } | more  # fmt: skip


async def judge(jobs: JobRunner, root: Path, taken: Taken, by: str | None = None) -> Quality:
    request = {
        "kind": "replay_judge", "root": str(root), "location": None, "taken": taken, "model": "m",
        "version": "v2", "by": by,
    }  # fmt: skip
    return await jobs.run("judging", request, Quality)


@pytest.mark.parametrize("form", ["skops", "onnx"])
async def test_a_version_is_loaded_asked_and_judged(
    jobs: JobRunner, records: Path, tmp_path: Path, form: str
) -> None:
    """The same that was answered is answered again; through another format and datatype too."""
    same = await taken_in(jobs, tmp_path, form, seed=0)
    taken = await take(jobs, records)
    assert (taken.planned.rows, taken.planned.requests, taken.planned.left_out) == (ROWS, ROWS, 0)
    told: list[tuple[int, int]] = []
    done = await jobs.run("running", run_request(taken, same), Done, lambda *at: told.append(at))
    assert (done.errors, done.problems) == (0, ())
    assert told[0] == (0, ROWS)
    found = await judge(jobs, records, taken, by="x0")
    assert (found.stable, found.candidate, found.paired) == ("v1", "v2", True)
    assert found.agreement is not None
    assert (found.agreement.n, found.agreement.same) == (ROWS, ROWS)
    (kept,) = replay_store.replays(records, "m")
    assert sorted(each.name for each in kept.iterdir()) == ["days"]


async def test_rows_of_another_version_differ_and_labels_tell(
    jobs: JobRunner, records: Path, tmp_path: Path
) -> None:
    """The labels are those that came for the requests as they were answered."""
    _, truth = breast_cancer()
    labels = pa.table(
        {
            "request_id": [f"r{at}" for at in range(ROWS)],
            "row": [0] * ROWS,
            "label": truth[:ROWS].astype(np.float64),
            "label_text": pa.nulls(ROWS),
            "reward": pa.nulls(ROWS),
            "received": [(START + 500) * 1_000_000] * ROWS,
        },
    )
    labels = labels.set_column(5, "received", labels["received"].cast(pa.timestamp("us", "UTC")))
    dataset.write_parquet(records, "/labels", labels.cast(schema.labels()))
    other = await taken_in(jobs, tmp_path, "skops", seed=1)
    taken = await take(jobs, records)
    await jobs.run("running", run_request(taken, other), Done)
    found = await judge(jobs, records, taken)
    assert {side.version: side.n for side in found.sides} == {"v1": ROWS, "v2": ROWS}
    assert found.task == "binary"
    assert found.coverage.labelled == ROWS
    rows = breast_cancer()[0][:ROWS]
    accuracy = float((pipeline(1).predict(rows) == truth[:ROWS]).mean())
    (side,) = [each for each in found.sides if each.version == "v2"]
    assert side.metrics["accuracy"] == pytest.approx(accuracy)


async def test_the_rules_of_a_host_hold(jobs: JobRunner, records: Path, tmp_path: Path) -> None:
    """Code is run where it is allowed alone, and content is what was registered."""
    code = await taken_in(jobs, tmp_path, "python")
    taken = await take(jobs, records)
    with pytest.raises(UntrustedCode):
        await jobs.run("running", run_request(taken, code), Done)
    allowed = run_request(taken, code, trusted=True)
    done = await jobs.run("running", allowed, Done)
    assert done.errors == 0
    entry = Path(code.artifact.folder) / code.artifact.entry
    os.chmod(entry, 0o644)
    entry.write_text(entry.read_text() + "\n# more\n")
    with pytest.raises(DigestMismatch):
        await jobs.run("running", allowed, Done)
    assert await jobs.run("dropping", {"kind": "replay_drop", "taken": taken}, bool)
    assert not Path(taken.folder).exists()


async def test_a_model_that_cannot_be_loaded_is_told(
    jobs: JobRunner, records: Path, tmp_path: Path
) -> None:
    """Without paths of this machine."""
    folder = (tmp_path / "models" / "bad").resolve()
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(
        "class Model:\n    def load(self, path):\n        raise OSError(f'no {path}/weights')\n"
        "    def predict(self, X):\n        return X\n"
    )
    bad = await jobs.ingest(
        str(folder), state_dir=tmp_path / "state", allowed_roots=[folder.parent]
    )
    taken = await take(jobs, records)
    with pytest.raises(LoadError) as told:
        await jobs.run("running", run_request(taken, bad, trusted=True), Done)
    assert str(tmp_path) not in str(told.value)


async def test_nothing_in_that_time(jobs: JobRunner, records: Path) -> None:
    """Nothing is left behind."""
    with pytest.raises(NotFound, match="nothing of model 'm'"):
        await take(jobs, records, since=START + 5000.0)
    assert not list((records / "replays").rglob("*"))
