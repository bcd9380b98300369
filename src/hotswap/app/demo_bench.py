"""What the demo's models are, and how each version is trained into a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from hotswap.ports import Array


@dataclass(frozen=True)
class DemoVersion:
    """One trained version, written to ``folder``.

    ``expected`` is what it predicts for every held-out row, computed here from the artifact's
    own library: what the server must answer, to the digit; NaN where it raises.
    """

    version: str
    format: str
    changelog: str
    folder: Path
    expected: Array


@dataclass(frozen=True)
class DemoModel:
    """One model: its versions in order, and held-out rows ``[n, features]`` with their labels."""

    name: str
    task: Literal["classification", "regression"]
    rows: Array
    labels: Array
    versions: tuple[DemoVersion, ...]

    def version(self, name: str) -> DemoVersion | None:
        """The version of that name, or None."""
        return next((each for each in self.versions if each.version == name), None)


class Bench:
    """Where versions are written, and how each format is."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def version(
        self,
        name: str,
        changelog: str,
        write: Callable[[Path], tuple[str, Array]],
        **settings: Any,
    ) -> DemoVersion:
        """One version: ``name`` is ``model/version``; ``write`` returns format and predictions.

        ``settings`` are further ones for its ``version.yaml``.
        """
        target = self.folder / name
        target.mkdir(parents=True)
        format, expected = write(target)
        (target / "version.yaml").write_text(yaml.safe_dump({"changelog": changelog} | settings))
        self.say(f"{name:12} {format:22} {changelog}")
        return DemoVersion(target.name, format, changelog, target, expected)


def split(loader: Any, *, stratify: bool) -> tuple[Array, Array, Array, Array]:
    """Half of the data to train on, half held out: the live traffic."""
    from sklearn.model_selection import train_test_split

    rows, labels = loader(return_X_y=True)
    parts = train_test_split(
        rows, labels, test_size=0.5, random_state=0, stratify=labels if stratify else None
    )
    train_rows, live_rows, train_labels, live_labels = (np.asarray(part) for part in parts)
    return train_rows, live_rows, train_labels, live_labels


def skops(model: Any, rows: Array) -> Callable[[Path], tuple[str, Array]]:
    """Writes a scikit-learn model as skops, and tells what it predicts for ``rows``."""

    def write(target: Path) -> tuple[str, Array]:
        import skops.io

        skops.io.dump(model, target / "model.skops")
        return "scikit-learn (skops)", np.asarray(model.predict(rows))

    return write


def onnx(model: Any, rows: Array) -> Callable[[Path], tuple[str, Array]]:
    """Writes a scikit-learn model as ONNX, and tells what ONNX Runtime makes of ``rows``."""

    def write(target: Path) -> tuple[str, Array]:
        import onnxruntime
        from skl2onnx import to_onnx

        sample = rows[:1].astype(np.float32)
        converted = to_onnx(model, sample, options={id(model): {"zipmap": False}})
        content = converted.SerializeToString()
        (target / "model.onnx").write_bytes(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options)
        feed = {session.get_inputs()[0].name: rows.astype(np.float32)}
        return "ONNX", np.asarray(session.run(None, feed)[0])

    return write
