"""`python -m benchmarks.records size | join`: what records weigh, and what joining labels costs.

``size`` writes requests of one row with the breast-cancer data's 30 features through a worker's
notes, its ring and the recorder's code, and weighs what is left on disk. ``join`` writes synthetic
records and labels, and counts those that belong together in a process of its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

#: A working day's beginning, Unix time.
START: Final = 1_700_006_400
PIECE: Final = 1_000_000
MEMORY_MB: Final = 512


def main() -> None:
    """Measure one of both, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("what", choices=["size", "join", "asked"])
    parser.add_argument("--records", type=int, default=None)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, default=None)
    args = parser.parse_args()
    if args.what == "asked":
        asked(args.root)
        return
    root = args.root or Path(tempfile.mkdtemp(prefix="hotswap-records-"))
    try:
        if args.what == "size":
            for inputs in ("as the data has them", "of full precision", "none"):
                size(root / inputs, args.records or 100_000, inputs)
        else:
            join(root, args.records or 10_000_000, args.labels)
    finally:
        if args.root is None:
            shutil.rmtree(root)


# --- size


def size(root: Path, many: int, inputs: str) -> None:
    """``inputs``: with as many digits as the data has, with all of them, or none."""
    from hotswap.records.privacy import Privacy
    from hotswap.records.recording import Recording

    rings = root / "rings"
    rings.mkdir(parents=True)
    notes, write = _notes(rings)
    privacy = Privacy(columns=() if inputs == "none" else None)
    recording = Recording(rings, root / "kept", "run", privacy, None, 30.0, 1 << 50, print)
    rows = _rows(many, exact=inputs == "of full precision")
    began = time.process_time()
    for number, row in enumerate(rows):
        write(number, row)
        if number % 2_500 == 2_499:  # a quarter of a second of 10,000 requests a second
            notes.flush()
            recording.drain(START)
    notes.flush()
    recording.drain(START)
    seconds = time.process_time() - began
    live = _weight(root / "kept" / "segments")
    recording.rotate(START, everything=True)
    recording.compact(START)
    assert recording.counts.lines == many, recording.counts
    print(
        f"inputs {inputs}: {live / many:.0f} bytes a record in live segments, "
        f"{_weight(root / 'kept' / 'days') / many:.0f} compacted; "
        f"noted and written in {seconds / many * 1e6:.1f} µs of one processor each"
    )


def _notes(rings: Path) -> tuple[Any, Any]:
    from hotswap.core.signature import Signature, TensorSpec
    from hotswap.ipc.ring import Ring
    from hotswap.serving.link import Outputs, Reply
    from hotswap.serving.notes import Notes
    from hotswap.serving.payload import Encoder

    clock = iter(range(1 << 60))
    notes = Notes(
        Ring.create(rings / "0.0"), secret=b"s", wall=lambda: float(START), coin=lambda: 0
    )
    outputs = (TensorSpec("predict", "INT64", (-1,)), TensorSpec("predict_proba", "FP64", (-1, 2)))
    names = tuple(f"feature {number}" for number in range(30))
    signature = Signature((TensorSpec("x", "FP64", (-1, 30)),), outputs, feature_names=names)
    encode, plain = Encoder().encode, notes.plain("v1", False)
    rng = np.random.default_rng(1)
    began = time.monotonic_ns()

    def write(number: int, row: Any) -> None:
        layout, raws = encode(signature, {"x": row[None]})
        chance = float(rng.random())
        batch = Outputs(1)
        batch += [
            ("predict", np.array([int(chance > 0.5)])),
            ("predict_proba", np.array([[1 - chance, chance]])),
        ]
        reply = Reply(batch, 0, 1, int(rng.integers(20_000, 90_000)), 110_000)
        took = int(rng.gamma(4.0, 100_000))
        at = began + next(clock) * 100_000
        notes.add(
            f"3681e16dab44-{number}", at, took, 1, layout, raws, reply, "cancer", plain, signature
        )

    return notes, write


def _rows(many: int, exact: bool) -> Any:
    """Rows of the data, each a little other than it was."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer().data
    rng = np.random.default_rng(0)
    rows = data[rng.integers(0, len(data), many)] * rng.normal(1.0, 0.02, (many, 30))
    if not exact:
        digits = 3 - np.floor(np.log10(np.maximum(np.abs(rows), 1e-6)))
        rows = np.round(rows * 10.0**digits) / 10.0**digits
    return rows


def _weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- join


def join(root: Path, records: int, labels: int) -> None:
    """Every tenth or so of the records has a label; they come in another order."""
    import pyarrow as pa

    from hotswap.records import dataset, schema
    from hotswap.records.files import LABELS

    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for number, first in enumerate(range(0, records, PIECE), 1):
        many = min(PIECE, records - first)
        chance = rng.random(many)
        given = {
            "time": (START + number * 3600) * 1_000_000 + np.arange(many) * 3000,
            "request_id": [f"3681e16dab44-{n}" for n in range(first, first + many)],
            "row": np.zeros(many, np.int32),
            "rows": np.ones(many, np.int32),
            "version": ["v1"] * many,
        }
        columns = {
            field.name: pa.array(given[field.name], field.type)
            if field.name in given
            else pa.nulls(many, field.type)
            for field in schema.fixed()
        }
        columns |= {f"input_x{at}": pa.array(rng.normal(size=many)) for at in range(5)}
        columns["output_predict"] = pa.array((chance > 0.5).astype(np.int64))
        dataset.write_parquet(root, "m", pa.table(columns), number)
    chosen = rng.choice(records, labels, replace=False)
    told: dict[str, Any] = {
        "request_id": [f"3681e16dab44-{n}" for n in chosen],
        "row": np.zeros(labels, np.int32),
        "label": rng.integers(0, 2, labels).astype(np.float64),
        "received": (START + 90_000) * 1_000_000 + np.arange(labels),
    }
    made = {
        field.name: pa.array(told[field.name], field.type)
        if field.name in told
        else pa.nulls(labels, field.type)
        for field in schema.labels()
    }
    dataset.write_parquet(root, LABELS, pa.table(made), 1)
    print(
        f"{records:,} records ({_weight(root / 'days') >> 20} MiB) and {labels:,} labels "
        f"({_weight(root / 'labels') >> 20} MiB) written in {time.perf_counter() - began:.0f} s"
    )
    command = [sys.executable, "-m", "benchmarks.records", "asked", f"--root={root}"]
    subprocess.run(command, check=True)


def asked(root: Path) -> None:
    """Count what is labelled and how often that was right; with the peak of this process."""
    from hotswap.records import dataset

    began = time.perf_counter()
    with dataset.open(root, "m", memory_mb=MEMORY_MB) as opened:
        found = opened.sql.execute(
            "SELECT count(*), avg((label = output_predict)::INT) FROM labelled"
        ).fetchone()
    seconds = time.perf_counter() - began
    # Not getrusage: that counts what the process which forked this one had.
    status = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    assert found is not None
    print(
        f"joined {found[0]:,} labels (accuracy {found[1]:.4f}) in {seconds:.1f} s, with at most "
        f"{peak:.0f} MiB ({MEMORY_MB} MiB are DuckDB's limit)"
    )


if __name__ == "__main__":
    main()
