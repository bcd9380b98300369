"""Runtimes are found by name, by folder and by entry point."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hotswap import plugins
from hotswap.errors import LoadError
from hotswap.plugins import find_runtime, runtimes
from hotswap.ports import Runtime
from hotswap.runtimes.python import PythonRuntime

NAMES = ["sklearn", "xgboost", "lightgbm", "onnx", "torch", "mlflow", "python"]


class OtherRuntime(PythonRuntime):
    """What another package might offer."""

    name = "other"

    def entry(self, folder: Path) -> str | None:
        return "model.other" if (folder / "model.other").is_file() else None


class NotQuite:
    """No runtime."""


@pytest.fixture
def fresh() -> Iterator[None]:
    """Look for the runtimes anew, before and after."""
    runtimes.cache_clear()
    yield
    runtimes.cache_clear()


def test_built_in() -> None:
    """Every built-in runtime keeps the port and its own name."""
    assert list(runtimes()) == NAMES
    for name, runtime in runtimes().items():
        assert isinstance(runtime, Runtime)
        assert runtime.name == name


@pytest.mark.usefixtures("fresh")
def test_entry_points(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A package's runtime is added; one that fails, or is none, or takes a name, is logged."""
    here = __name__
    points = [
        EntryPoint("other", f"{here}:OtherRuntime", plugins.GROUP),
        EntryPoint("broken", "nowhere_to_be_found:Runtime", plugins.GROUP),
        EntryPoint("not_quite", f"{here}:NotQuite", plugins.GROUP),
        EntryPoint("python", "hotswap.runtimes.python:PythonRuntime", plugins.GROUP),
    ]
    monkeypatch.setitem(sys.modules, here, sys.modules[here])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    with caplog.at_level(logging.INFO):
        assert list(runtimes()) == [*NAMES, "other"]
    said = caplog.text
    assert "broken (nowhere_to_be_found:Runtime) could not be loaded: ModuleNotFoundError" in said
    assert "is no Runtime" in said
    assert "its name is taken" in said


@pytest.mark.parametrize(
    ("files", "runtime", "entry"),
    [
        (["model.skops", "model.joblib"], "sklearn", "model.skops"),
        (["anything.onnx"], "onnx", "anything.onnx"),
        (["model.py", "scaler.onnx", "weights.joblib"], "python", "model.py"),
        (["MLmodel", "model.pkl", "model.onnx"], "mlflow", "."),
        (["model.onnx", "notes.txt", "requirements.txt", "settings.json"], "onnx", "model.onnx"),
        (["fraud.pkl", "requirements.txt", "version.yaml"], "sklearn", "fraud.pkl"),
    ],
)
def test_by_folder(files: list[str], runtime: str, entry: str, tmp_path: Path) -> None:
    """Which file is the model: MLflow's folder, then ``model.*``, then the only one of its kind."""
    for name in files:
        (tmp_path / name).write_text("x")
    found, where = find_runtime(tmp_path)
    assert (found.name, where) == (runtime, entry)


def test_a_text_model_of_another_name_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    """Among text files, the one that begins like a LightGBM model is it."""
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "boost.txt").write_text("tree\nversion=v4\n")
    assert find_runtime(tmp_path)[1] == "boost.txt"


def test_several_are_refused_by_name(tmp_path: Path) -> None:
    """Two possible models: which one is asked, and an explicit runtime decides."""
    (tmp_path / "model.onnx").touch()
    (tmp_path / "model.pkl").touch()
    with pytest.raises(LoadError, match=r"model\.pkl \(sklearn\), model\.onnx \(onnx\); say which"):
        find_runtime(tmp_path)
    assert find_runtime(tmp_path, "onnx")[1] == "model.onnx"


def test_none_names_what_was_looked_for(tmp_path: Path) -> None:
    """An empty folder's error lists the files that would have done; no path is shown."""
    with pytest.raises(LoadError, match=r"looked for model\.skops.*model\.onnx.*MLmodel") as raised:
        find_runtime(tmp_path)
    assert str(tmp_path) not in str(raised.value)
    (tmp_path / "a.onnx").touch()
    (tmp_path / "b.onnx").touch()
    with pytest.raises(LoadError, match="there is no model"):
        find_runtime(tmp_path)


def test_a_wrong_wish(tmp_path: Path) -> None:
    """An unknown runtime names those there are; a known one without a file says what it wants."""
    with pytest.raises(LoadError, match="no runtime 'keras'; there are: sklearn"):
        find_runtime(tmp_path, "keras")
    with pytest.raises(LoadError, match=r"the runtime onnx finds no model .* model\.onnx"):
        find_runtime(tmp_path, "onnx")
    with pytest.raises(LoadError, match="there is no folder gone"):
        find_runtime(tmp_path / "gone")


def child(code: str) -> str:
    """What a fresh interpreter prints."""
    environment = {
        **os.environ,
        **plugins.PRELOAD_ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_finding_imports_nothing_heavy(tmp_path: Path) -> None:
    """Neither the module, nor all runtimes, nor looking at a folder imports a model library."""
    (tmp_path / "model.joblib").touch()
    found = child(
        "import sys; from pathlib import Path; from hotswap.plugins import find_runtime\n"
        f"r, e = find_runtime(Path({str(tmp_path)!r})); r.runs_code(Path({str(tmp_path)!r}), e)\n"
        "heavy = {'sklearn', 'pandas', 'scipy', 'joblib', 'skops', 'onnxruntime', 'onnx', 'torch',"
        " 'xgboost', 'lightgbm', 'mlflow', 'asyncio', 'threadpoolctl'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert found == "[]"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("name", NAMES)
def test_preload_leaves_no_thread(name: str) -> None:
    """After its imports a process has its one thread, so that it may be forked."""
    found = child(
        "import os; from hotswap.plugins import runtimes\n"
        f"runtimes()[{name!r}].preload(); print(len(os.listdir('/proc/self/task')))"
    )
    assert found == "1"


def test_looking_is_cheap() -> None:
    """The module is imported without any runtime's module."""
    found = child(
        "import sys; import hotswap.plugins\n"
        "print([name for name in sys.modules if name.startswith('hotswap.runtimes')])"
    )
    assert found == "[]"
