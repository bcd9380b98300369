"""The folder of `make demo-mlflow`."""

from __future__ import annotations

from pathlib import Path

from hotswap.app import demo_mlflow


def test_an_earlier_demo_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    """What a demo made is replaced; a file of the user's own stays."""
    for name in ("mlflow/mlflow.db", "state/hotswap.db", "mine/work.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("here")
    assert demo_mlflow.cleared(tmp_path) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine/work.txt").read_text() == "here"
    assert demo_mlflow.cleared(tmp_path / "new/one").is_dir()
