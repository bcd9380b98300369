"""Which runtimes a version's hosts will need imported."""

from __future__ import annotations

import pytest

from hotswap.core.preloading import runtimes_of
from hotswap.core.spec import Artifact, ManifestEntry


@pytest.mark.parametrize(
    ("runtime", "files", "needed"),
    [
        ("onnx", ["model.onnx", "notes.pkl"], ("onnx",)),
        ("mlflow", ["MLmodel", "model.pkl", "requirements.txt"], ("mlflow", "sklearn")),
        ("mlflow", ["MLmodel", "model.ubj"], ("mlflow", "xgboost")),
        ("mlflow", ["MLmodel", "data/model.pth"], ("mlflow", "torch")),
        ("mlflow", ["MLmodel", "python_model.bin"], ("mlflow",)),
    ],
)
def test_an_mlflow_folder_needs_what_loads_its_model(
    runtime: str, files: list[str], needed: tuple[str, ...]
) -> None:
    """Its own runtime hands the model on; other versions need their own alone."""
    manifest = tuple(ManifestEntry(name, 1, "") for name in files)
    assert runtimes_of(Artifact("/a", ".", runtime, "sha256:0", manifest)) == needed
