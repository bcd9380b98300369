"""Train two small versions of one model and write them as a models folder.

python examples/models.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path


def write(folder: Path) -> None:
    """Write ``folder/tumours/v1`` and ``v2``, in a format that carries no code."""
    import skops.io
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_breast_cancer(return_X_y=True)
    for version, strength in (("v1", 0.01), ("v2", 1.0)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength)).fit(rows, labels)
        target = folder / "tumours" / version
        target.mkdir(parents=True, exist_ok=True)
        skops.io.dump(model, target / "model.skops")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
