"""What must not be loaded is refused with a sentence, and nothing it carries is run."""

from __future__ import annotations

import importlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError, MissingDependency
from hotswap.plugins import find_runtime
from hotswap.ports import Executor
from hotswap.runtimes.onnx_file import check as check_onnx
from hotswap.runtimes.skops_files import allowed, load_skops
from hotswap.runtimes.torch import require_safe
from tests.models import FILE_OF, write_breast_cancer


class Canary:
    """Unpickled, it makes the file ``canary`` where the test says."""

    path = ""

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """The path that a `Canary` would make."""
    Canary.path = str(tmp_path / "canary")
    return tmp_path / "canary"


def load(folder: Path, wanted: str | None = None) -> Executor:
    runtime, entry = find_runtime(folder, wanted)
    artifact = Artifact(str(folder), entry, runtime.name, "sha256:00")
    return runtime.load(artifact, VersionSettings())


@pytest.mark.parametrize(
    "name", ["model.skops", "model.onnx", "model.ubj", "model.json", "model.txt", "model.pt2"]
)
def test_a_renamed_pickle_is_an_error(name: str, tmp_path: Path, canary: Path) -> None:
    """A pickle under another format's name is refused, and never unpickled."""
    (tmp_path / name).write_bytes(pickle.dumps(Canary()))
    with pytest.raises(LoadError, match=name):
        load(tmp_path)
    assert not canary.exists()


def test_a_pickled_torch_module_is_refused(tmp_path: Path, canary: Path) -> None:
    """A full torch pickle, or bare weights, is no program; it is not unpickled to find out."""
    import torch

    torch.save(Canary(), tmp_path / "model.pt")
    with pytest.raises(LoadError, match=r"torch\.export\.save"):
        load(tmp_path)
    assert not canary.exists()


def test_a_program_under_the_wrong_suffix_is_refused(tmp_path: Path) -> None:
    """What the archive holds decides, and the suffix must agree."""
    import torch

    program = torch.export.export(torch.nn.Linear(2, 1).eval(), (torch.zeros(3, 2),))
    torch.export.save(program, tmp_path / "model.pt2")
    (tmp_path / "model.pt2").rename(tmp_path / "model.pt")
    with pytest.raises(LoadError, match=r"name it model\.pt2"):
        load(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("fmt", ["joblib", "pkl", "skops", "onnx", "xgb-ubj", "lgbm-txt"])
def test_a_truncated_file_is_an_error(fmt: str, share: float, tmp_path: Path) -> None:
    """A file that ends early is refused by name; the process lives."""
    path = write_breast_cancer(tmp_path, fmt) / FILE_OF[fmt]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(LoadError, match=FILE_OF[fmt]):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.skops", "model.onnx", "model.txt", "model.pkl"])
def test_an_empty_file_is_an_error(name: str, tmp_path: Path) -> None:
    """An empty file is refused by name."""
    (tmp_path / name).touch()
    with pytest.raises(LoadError, match=name):
        load(tmp_path)


def test_skops_with_a_type_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    """A type that is not on our list is named, and not trusted because the file asks for it."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(func=os.system), tmp_path / "model.skops")
    with pytest.raises(LoadError, match=r"posix\.system"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("sklearn.linear_model._logistic.LogisticRegression", True),
        ("sklearn._loss.link.LogitLink", True),
        ("numpy.float64", True),
        ("scipy.sparse._csr.csr_matrix", True),
        ("numpy.memmap", False),
        ("numpy.load", False),
        ("numpy.lib.npyio.DataSource", False),
        ("sklearn.datasets.fetch_openml", False),
        ("sklearn.linear_model._logistic.Nothing", False),
        ("os.system", False),
        ("sklearn.os.system", False),
        ("tests.models.Model", False),
    ],
)
def test_the_list_of_safe_types(name: str, yes: bool) -> None:
    """Estimators and their parts are on the list; functions and what opens files are not."""
    assert allowed(name) is yes


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../b", "..\\x", "C:\\x", ""]
)
def test_onnx_external_data_must_stay_inside(location: str, tmp_path: Path) -> None:
    """A tensor's data may not lie outside the version's folder, however the way is written."""
    write_onnx_with_data(tmp_path / "v1", location)
    (tmp_path / "secret").write_bytes(bytes(8))
    with pytest.raises(LoadError, match="outside the version's folder"):
        load(tmp_path / "v1")


def test_onnx_external_data_may_not_be_a_link(tmp_path: Path) -> None:
    """A link beside the model does not lead out either."""
    (tmp_path / "secret").write_bytes(bytes(8))
    write_onnx_with_data(tmp_path / "v1", "weights")
    (tmp_path / "v1" / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(LoadError, match="outside the version's folder"):
        load(tmp_path / "v1")


def test_onnx_external_data_inside_is_served(tmp_path: Path) -> None:
    """Data beside the model is what the format is for."""
    folder = write_onnx_with_data(tmp_path / "v1", "weights")
    (folder / "weights").write_bytes(np.array([1.0, 2.0], np.float32).tobytes())
    answers = load(folder).predict({"x": np.ones((3, 2), np.float32)}, ())
    assert answers["y"].tolist() == [[2.0, 3.0]] * 3


def test_onnx_external_data_hidden_in_a_subgraph_is_found(tmp_path: Path) -> None:
    """Tensors in node attributes and inner graphs are walked too."""
    from onnx import TensorProto, helper

    hidden = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../secret")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=hidden)],
        "inner",
        [],
        [helper.make_tensor_value_info("o", 1, [1])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "g", [], [])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(LoadError, match="outside"):
        check_onnx(path, tmp_path)


def write_onnx_with_data(folder: Path, location: str) -> Path:
    from onnx import TensorProto, helper

    weights = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 2])],
        [helper.make_tensor_value_info("y", 1, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            "def load(self, path): raise OSError('no weights')",
            "Model.load raised OSError: no weights",
        ),
        ("def __init__(self): 1 / 0", r"Model\(\) raised ZeroDivisionError"),
        ("signature = {'inputs': 3, 'outputs': []}", "the signature of Model is not valid"),
    ],
)
def test_a_python_model_that_raises(body: str, error: str, tmp_path: Path) -> None:
    """What a user's class raises while loading is told as type and message."""
    (tmp_path / "model.py").write_text(f"class Model:\n    {body}\n    def predict(self, X): ...\n")
    with pytest.raises(LoadError, match=error):
        load(tmp_path)


def test_a_python_file_without_the_class(tmp_path: Path) -> None:
    """The sentence says what the file must define."""
    (tmp_path / "model.py").write_text("class Other: ...\n")
    with pytest.raises(LoadError, match=r"must define a class 'Model' with the methods load"):
        load(tmp_path)


def test_a_python_model_with_a_missing_package(tmp_path: Path) -> None:
    """A package that the model needs and that is not there is named."""
    (tmp_path / "model.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(MissingDependency, match="nowhere_to_be_found"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("fmt", "module", "hint"),
    [
        ("joblib", "sklearn", "scikit-learn is not installed; .*'hotswap\\[sklearn\\]'"),
        ("skops", "skops", "skops is not installed; .*'hotswap\\[sklearn\\]'"),
        ("onnx", "onnxruntime", "onnxruntime is not installed; .*'hotswap\\[onnx\\]'"),
        ("xgb-ubj", "xgboost", "xgboost is not installed; .*'hotswap\\[xgboost\\]'"),
        ("lgbm-txt", "lightgbm", "lightgbm is not installed; .*'hotswap\\[lightgbm\\]'"),
    ],
)
def test_a_missing_library_says_what_to_install(
    fmt: str, module: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library, loading and preloading name the extra."""
    write_breast_cancer(tmp_path, fmt)
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    runtime, entry = find_runtime(tmp_path)
    with pytest.raises(MissingDependency, match=hint):
        runtime.load(Artifact(str(tmp_path), entry, runtime.name, "sha256:00"), VersionSettings())
    with pytest.raises(MissingDependency, match=hint):
        runtime.preload()


@pytest.mark.parametrize("version", ["2.5.1+cpu", "1.13", "unknown"])
def test_an_unsafe_torch_is_refused(version: str) -> None:
    """A torch older than 2.6 loads nothing here."""
    with pytest.raises(MissingDependency, match="CVE-2025-32434"):
        require_safe(version)
    require_safe("2.6.0")
    require_safe("2.13.0+cpu")
    require_safe("3.0")


def test_an_old_torch_is_refused_before_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime asks for the version first."""
    import torch

    (tmp_path / "model.pt").write_bytes(b"PK")
    monkeypatch.setattr(torch, "__version__", "2.5.0")
    with pytest.raises(MissingDependency, match=r"torch 2\.5\.0"):
        load(tmp_path)


def test_an_object_without_predict_is_refused(tmp_path: Path) -> None:
    """A pickle of something else is told apart from a model."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(LoadError, match="a dict, which has no method 'predict'"):
        load(tmp_path)


@pytest.mark.parametrize("data", ["../model.pkl", "/etc/passwd", "a\\b", 3])
def test_mlflow_paths_stay_inside(data: Any, tmp_path: Path) -> None:
    """MLmodel may name files of its own folder only."""
    import yaml

    content = {"flavors": {"sklearn": {"pickled_model": data}}}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(content))
    runtime, entry = find_runtime(tmp_path)
    with pytest.raises(LoadError, match="within the version's folder"):
        runtime.runs_code(tmp_path, entry)


def test_mlflow_yaml_builds_no_objects(tmp_path: Path, canary: Path) -> None:
    """A tag that would call a function is an error, not a call."""
    (tmp_path / "MLmodel").write_text(f"flavors: !!python/object/apply:os.mkdir ['{canary}']\n")
    runtime, entry = find_runtime(tmp_path)
    with pytest.raises(LoadError, match="MLmodel cannot be read"):
        runtime.runs_code(tmp_path, entry)
    assert not canary.exists()


def test_a_pyfunc_needs_trust(tmp_path: Path) -> None:
    """A folder whose only flavour is python_function can run code, and says so."""
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: my.loader}}\n")
    runtime, entry = find_runtime(tmp_path)
    reason = runtime.runs_code(tmp_path, entry)
    assert reason is not None
    for word in ("--trust-code", "HOTSWAP_TRUST_CODE=1", "skops", "hotswap models convert"):
        assert word in reason


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.pt", "model.pt2", "model.py"])
def test_what_runs_code_says_so(name: str, tmp_path: Path) -> None:
    """Each format that can run code names the flag and the safe formats."""
    (tmp_path / name).write_bytes(b"")
    runtime, entry = find_runtime(tmp_path)
    reason = runtime.runs_code(tmp_path, entry)
    assert reason is not None
    assert name in reason
    assert "--trust-code" in reason


def test_nothing_is_unpickled_outside_the_one_module() -> None:
    """No other module of the package even imports what unpickles."""
    root = Path(importlib.import_module("hotswap").__file__ or "").parent
    for path in root.rglob("*.py"):
        if path.name != "pickles.py":
            text = path.read_text()
            assert "import pickle" not in text, path.name
            assert "joblib.load" not in text, path.name


@pytest.mark.parametrize("fmt", ["xgb-ubj", "lgbm-txt", "onnx", "skops"])
def test_a_declared_signature_that_is_not_the_artifacts_is_refused(
    fmt: str, tmp_path: Path
) -> None:
    """Where the artifact tells what it takes, version.yaml cannot say otherwise unnoticed."""
    write_breast_cancer(tmp_path, fmt)
    runtime, entry = find_runtime(tmp_path, None)
    artifact = Artifact(str(tmp_path), entry, runtime.name, "sha256:00")
    for width, fits in ((30, True), (-1, True), (7, False)):
        declared = Signature((TensorSpec("x", "FP32", (-1, width)),), ())
        settings = VersionSettings(signature=declared)
        if fits:
            runtime.load(artifact, settings).close()
        else:
            with pytest.raises(LoadError, match=r"x \[-1, 7\].* is not the artifact's"):
                runtime.load(artifact, settings)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_samples_without_a_datatype_suit_the_torch_program(tmp_path: Path) -> None:
    """JSON has no FP32: the program's own precision is taken, not FP64, which it would refuse."""
    torch: Any = importlib.import_module("torch")

    program = torch.jit.trace(torch.nn.Linear(2, 1).eval(), torch.zeros(1, 2))
    program.save(str(tmp_path / "model.pt"))
    runtime, entry = find_runtime(tmp_path, None)
    settings = VersionSettings(samples=[[1.0, 2.0]])
    executor = runtime.load(Artifact(str(tmp_path), entry, runtime.name, "sha256:00"), settings)
    assert [spec.datatype for spec in executor.signature.inputs] == ["FP32"]
    rows = {"input": np.ones((3, 2), np.float32)}
    assert executor.predict(rows, ())["output"].shape == (3, 1)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """The sentence names the package, and no placeholder."""
    (tmp_path / "model.py").write_text("import no_such_package.deep\n\nclass Model: ...\n")
    with pytest.raises(MissingDependency, match="needs the package no_such_package, which"):
        load(tmp_path)


def test_a_feature_selector_in_skops_loads(tmp_path: Path) -> None:
    """The function by which columns were scored is on the list; other functions are not."""
    import skops.io
    from sklearn.feature_selection import SelectKBest, f_classif

    rows, labels = np.eye(6), np.array([0, 1, 0, 1, 0, 1])
    fitted = SelectKBest(f_classif, k=2).fit(rows, labels)
    skops.io.dump(fitted, tmp_path / "model.skops")
    again = load_skops(tmp_path / "model.skops")
    assert (again.transform(rows) == fitted.transform(rows)).all()
    assert not allowed("sklearn.utils.extmath.safe_sparse_dot")
