"""Version folders whose models misbehave on demand, written as ``model.py`` files.

Every one answers with its own number (``v3`` answers 3.0 for every row), so that an answer's
body tells which version computed it, whatever the header says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ABORT: Final = 1e6 + 1
"""First value of a row that makes a model abort its process."""
HANG: Final = 1e6 + 2
RAISE: Final = 1e6 + 3
WRONG_ROWS: Final = 1e6 + 4
NOT_A_NUMBER: Final = 1e6 + 5
SLOW: Final = 1e6 + 6
"""Takes as many seconds as the row's second value says, and notes that it ran."""
LEAK: Final = 1e6 + 7
"""Keeps as many MiB as the row's second value says."""

_TEMPLATE = """
import ctypes, os, time

import numpy as np


class Model:
    def load(self, path):
        self.kept = []
        {load}

    def predict(self, X):
        X = np.asarray(X)
        if X[0, 0]:  # a sample's is zero
            {predict}
        for row in X:
            mark, value = float(row[0]), float(row[1])
            if mark == 1e6 + 1:
                os.abort()
            elif mark == 1e6 + 2:
                time.sleep(3600)
            elif mark == 1e6 + 3:
                raise ValueError("cannot read /srv/secret/weights.bin")
            elif mark == 1e6 + 4:
                return np.zeros(len(X) + 1)
            elif mark == 1e6 + 5:
                return np.full(len(X), np.nan)
            elif mark == 1e6 + 6:
                time.sleep(value)
                with open({note!r}, "a") as file:
                    file.write("ran\\n")
            elif mark == 1e6 + 7:
                self.kept.append(np.ones(int(value) << 17))
        return np.full(len(X), {number!r})
"""

SIGNATURE: Final = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 2]}]}\n"

# What `load` may do.
FINE: Final = "pass"
RAISES: Final = "raise RuntimeError('no weights in ' + str(path) + '/weights.bin')"
ABORTS: Final = "os.abort()"
EXITS: Final = "os._exit(3)"
SEGFAULTS: Final = "ctypes.string_at(0)"
HANGS: Final = "time.sleep(3600)"
EATS: Final = "self.kept = [bytearray(b'x' * (16 << 20)) for _ in range(64)]"


def takes(seconds: float) -> str:
    """A load of so many seconds."""
    return f"time.sleep({seconds})"


def number_of(version: str) -> float:
    """What the model of a version answers: ``v12`` answers 12.0."""
    return float(version.removeprefix("v"))


def write_trick(
    models: Path,
    model: str,
    version: str,
    *,
    load: str = FINE,
    settings: str = "",
    signature: str = SIGNATURE,
    note: Path | None = None,
    predict: str = FINE,
) -> Path:
    """Write ``models/model/version``; ``settings`` are further lines of its ``version.yaml``.

    ``note``: a file that gets a line for each row marked `SLOW` that was computed. ``predict``: a
    statement about `X` that begins every prediction whose first row does not begin with zero.
    The folder appears whole, in one rename.
    """
    folder = models / model / version
    hidden = models.parent / f".writing-{model}-{version}"
    hidden.mkdir(parents=True)
    text = _TEMPLATE.format(
        load=load, predict=predict, number=number_of(version), note=str(note or os.devnull)
    )
    (hidden / "model.py").write_text(text)
    (hidden / "version.yaml").write_text(signature + settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden.rename(folder)
    return folder
