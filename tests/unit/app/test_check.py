"""``hotswap check``: what each version of a folder is, and that a bad one hurts itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotswap.app.check import CheckResult, check_models
from hotswap.config import Settings
from hotswap.errors import ConfigError
from tests.models import write_breast_cancer

YAML = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 2]}]}\n"


def write(folder: Path, source: str, yaml: str = YAML) -> None:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder / "version.yaml").write_text(yaml)


def check(folder: Path, **settings: object) -> tuple[bool, dict[str, CheckResult]]:
    """Whether all is good, and the results by "model/version", in order."""
    results: list[CheckResult] = []
    good = check_models(folder, Settings(models=folder, **settings), results.append)
    return good, {f"{each.model}/{each.version}": each for each in results}


def test_good_models(tmp_path: Path) -> None:
    """Runtime, signature and times are told; nothing of it was served or left behind."""
    write_breast_cancer(tmp_path / "tumours" / "v2", "onnx")
    write_breast_cancer(tmp_path / "tumours" / "v10", "skops")
    before = sorted(tmp_path.rglob("*"))
    good, results = check(tmp_path)
    assert good
    assert list(results) == ["tumours/v2", "tumours/v10"]
    skops = results["tumours/v10"]
    assert (skops.ok, skops.runtime, skops.error, skops.warnings) == (True, "sklearn", None, ())
    assert "FP64[30] → predict INT64, predict_proba FP64[2]" in skops.signature
    assert skops.seconds > 0
    assert skops.signature in skops.message
    assert results["tumours/v2"].runtime == "onnx"
    assert sorted(tmp_path.rglob("*")) == before


def test_each_bad_version_is_told_and_the_good_one_stays_good(tmp_path: Path) -> None:
    """An exception, a crash, a hang and an exit each cost one version only."""
    model = tmp_path / "m"
    good_source = "class Model:\n    def predict(self, X): return X[:, 0]\n"
    write(model / "v1", good_source)
    write(model / "v2", "raise RuntimeError('no weights')")
    write(model / "v3", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    write(model / "v4", "import time\nwhile True: time.sleep(0.01)", YAML + "load_seconds: 0.5\n")
    write(model / "v5", "import os\nprint('goodbye')\nos._exit(3)")
    write(model / "v6", "class Model:\n    def predict(self, X): return X[:1, 0]\n")
    write(model / "v7", "print('{\"noise\": 1}', flush=True)\n" + good_source)
    good, results = check(tmp_path, trust_code=True)
    assert not good
    told = {name: each.message for name, each in results.items()}
    assert [each.ok for each in results.values()] == [True, *[False] * 5, True]
    assert "RuntimeError: no weights" in told["m/v2"]
    assert "crashed its process (SIGSEGV)" in told["m/v3"]
    assert "loading took longer than 0.5 s" in told["m/v4"]
    assert "status 3: goodbye" in told["m/v5"]
    assert "1 rows for" in told["m/v6"]
    assert results["m/v1"].signature == "x FP64[2] → predict FP64"


def test_a_version_that_takes_too_much_memory(tmp_path: Path) -> None:
    """The limit of its version.yaml holds, as it will in the server."""
    source = (
        "hoard = bytearray(2 * 1024**3)\nclass Model:\n    def predict(self, X): return X[:, 0]\n"
    )
    write(tmp_path / "m" / "v1", source, YAML + "memory_mb: 200\n")
    good, results = check(tmp_path, trust_code=True)
    assert not good
    assert "emory" in results["m/v1"].message


def test_a_signature_that_does_not_fit_the_first_versions(tmp_path: Path) -> None:
    """The version could be served, but not take over: a warning says what differs."""
    write(tmp_path / "m" / "v1", "class Model:\n    def predict(self, X): return X[:, 0]\n")
    wide = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 3]}]}\n"
    write(tmp_path / "m" / "v2", "class Model:\n    def predict(self, X): return X[:, 0]\n", wide)
    good, results = check(tmp_path, trust_code=True)
    assert good
    (warning,) = results["m/v2"].warnings
    assert "does not fit the model's signature" in warning
    assert warning in results["m/v2"].message


def test_what_needs_trust_or_permission(tmp_path: Path) -> None:
    """Code is not run without trust; what cannot be tried out needs the operator's word."""
    source = (
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model:\n    def predict(self, X): return X\n"
    )
    write(tmp_path / "models" / "m" / "v1", source, "")
    good, results = check(tmp_path / "models")
    assert not good
    assert "--trust-code" in results["m/v1"].message
    assert not (tmp_path / "ran").exists()
    _, results = check(tmp_path / "models", trust_code=True)
    assert "nothing tells what this version takes" in results["m/v1"].message
    good, results = check(tmp_path / "models", trust_code=True, allow_unvalidated=True)
    assert good
    assert "unvalidated" in results["m/v1"].message


def test_what_is_no_version_is_told(tmp_path: Path) -> None:
    """A stray file and a folder with a bad name are results too."""
    write_breast_cancer(tmp_path / "m" / "v1", "onnx")
    (tmp_path / "m" / "v 2").mkdir()
    (tmp_path / "m" / "v 2" / "model.onnx").touch()
    good, results = check(tmp_path)
    assert not good
    assert results["m/v1"].ok
    assert "is not valid" in results["m/v 2"].message


def test_an_empty_version(tmp_path: Path) -> None:
    """A damaged artifact fails with the library's own words, an unknown one with what is looked for."""
    (tmp_path / "m" / "v1").mkdir(parents=True)
    (tmp_path / "m" / "v1" / "model.onnx").write_bytes(b"not onnx")
    (tmp_path / "m" / "v2").mkdir()
    (tmp_path / "m" / "v2" / "readme.md").write_text("no model")
    good, results = check(tmp_path)
    assert not good
    assert not any(each.ok for each in results.values())
    assert "there is no model in" in results["m/v2"].message


def test_an_unreadable_folder(tmp_path: Path) -> None:
    """One clear line."""
    with pytest.raises(ConfigError, match="cannot be read"):
        check(tmp_path / "nothing")


def test_what_would_be_compiled_is_compiled(tmp_path: Path) -> None:
    """`compile: onnx` is checked as a server would do it: converted, proved, the result loaded."""
    for version, yaml in (
        ("v1", "compile: onnx\n"),
        ("v2", "compile: onnx\nparity_atol: 0\nparity_rtol: 0\n"),
        ("v3", "parity_atol: 0\nparity_rtol: 0\n"),
    ):
        folder = write_breast_cancer(tmp_path / "models" / "m" / version, "skops")
        (folder / "version.yaml").write_text(yaml)
    write_breast_cancer(tmp_path / "models" / "m" / "v4", "joblib")
    (tmp_path / "models" / "m" / "v4" / "version.yaml").write_text("compile: onnx\n")
    before = sorted(tmp_path.rglob("*"))
    good, results = check(tmp_path / "models")
    assert not good
    assert (results["m/v1"].ok, results["m/v1"].runtime) == (True, "onnx")
    assert not results["m/v2"].ok
    assert "the ONNX version differs from the original" in results["m/v2"].message
    assert (results["m/v3"].ok, results["m/v3"].runtime) == (True, "sklearn")
    assert "--trust-code" in results["m/v4"].message
    assert sorted(tmp_path.rglob("*")) == before
