"""Reading version.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import VersionSettings
from hotswap.errors import ConfigError
from hotswap.sources.settings import LARGEST, read_version_yaml


def read(folder: Path, text: str | bytes) -> VersionSettings:
    content = text.encode() if isinstance(text, str) else text
    (folder / "version.yaml").write_bytes(content)
    return read_version_yaml(folder)


def test_without_the_file_there_are_defaults(tmp_path: Path) -> None:
    """The file is optional, and may be empty."""
    assert read_version_yaml(tmp_path) == VersionSettings()
    assert read(tmp_path, "") == VersionSettings()
    assert read(tmp_path, "# only a comment\n") == VersionSettings()


def test_every_key_is_read(tmp_path: Path) -> None:
    """A file with all of the settings."""
    (tmp_path / "samples.json").write_text("[[1]]")
    text = """
        runtime: onnx
        samples: samples.json
        instances: 2
        threads: 3
        batch_rows: 64
        finite: true
        pure: false
        in_place: true
        compile: onnx
        load_seconds: 10
        hang_seconds: 1.5
        memory_mb: 512
        parity_atol: 0.01
        parity_rtol: 0
        metadata: {team: risk, trained: 2024-05-01, nested: {a: [1, null]}}
        changelog: "More data: twice"
        signature:
          kind: tensor
          feature_names: [a, b]
          inputs:
            - {name: x, datatype: FP32, shape: [-1, 2]}
          outputs:
            - {name: y, datatype: INT64}
    """
    assert read(tmp_path, text) == VersionSettings(
        runtime="onnx",
        samples="samples.json",
        instances=2,
        threads=3,
        batch_rows=64,
        finite=True,
        pure=False,
        in_place=True,
        compile="onnx",
        load_seconds=10.0,
        hang_seconds=1.5,
        memory_mb=512,
        parity_atol=0.01,
        parity_rtol=0.0,
        metadata={"team": "risk", "trained": "2024-05-01", "nested": {"a": [1, None]}},
        changelog="More data: twice",
        signature=Signature(
            (TensorSpec("x", "FP32", (-1, 2)),),
            (TensorSpec("y", "INT64", (-1,)),),
            feature_names=("a", "b"),
        ),
    )


def test_samples_may_be_rows(tmp_path: Path) -> None:
    """Rows written into the file itself."""
    assert read(tmp_path, "samples: [[1, 2.5], [3, 4]]").samples == [[1, 2.5], [3, 4]]


INPUT = "signature: {inputs: [%s]}"
WRONG = [
    ("trust: true", "unknown key 'trust'.*allowed keys: runtime, signature"),
    ("trust_code: true", "unknown key 'trust_code'"),
    ("runs_code: false", "unknown key 'runs_code'"),
    ("Instances: 2", "unknown key 'Instances'"),
    ("1: 2", "unknown key '1'"),
    ("instances: two", "instances: Expected int, got str"),
    ("instances: 1.5", "instances: Expected int"),
    ("instances: true", "instances: Expected int, got bool"),
    ("instances: 0", "instances must be at least 1"),
    ("threads: -1", "threads must be at least 1"),
    ("batch_rows: 0", "batch_rows must be at least 1"),
    ("memory_mb: 0", "memory_mb must be at least 1"),
    ("load_seconds: 0", "load_seconds must be a positive"),
    ("hang_seconds: .nan", "hang_seconds must be a positive"),
    ("hang_seconds: .inf", "hang_seconds must be a positive"),
    ("parity_atol: -1", "parity_atol must be zero"),
    ("finite: 1", "finite: Expected bool"),
    ("compile: tensorrt", "compile: Invalid enum value 'tensorrt'"),
    ("runtime: [a]", "runtime: Expected str"),
    ("metadata: {1: 2}", "metadata"),
    ("samples: ../../etc/passwd.json", "samples must name a file beside it"),
    ("samples: /etc/x.json", "samples must name a file beside it"),
    ("samples: '..\\x.json'", "samples must name a file beside it"),
    ("samples: samples.pkl", "samples must name a file beside it"),
    ("samples: none.json", "no such file beside it"),
    ("- a\n- b", "write a mapping"),
    ("just text", "write a mapping"),
    ("42", "write a mapping"),
    ("instances: 1\ninstances: 2", "line 2: the key 'instances' is given twice"),
    ("metadata: {a: 1, a: 2}", "given twice"),
    ("a: &x [1]\nb: *x", "line 2: aliases"),
    ("metadata: &x\n  <<: *x", "aliases"),
    ("metadata: !!python/object/apply:os.system ['touch marker']", "could not determine"),
    ("metadata: !!python/name:os.system", "could not determine"),
    ("a: [", "line 1"),
    ("\tinstances: 2", "line 1"),
    (b"\xff\xfe\x00", "is not valid YAML"),
    (b"a: \x00", "is not valid YAML"),
    ("a: " + "[" * 10_000, "nested too deeply"),
    ("signature: [x]", "signature must be a mapping"),
    ("signature: {outputs: []}", "signature.inputs must be a list"),
    ("signature: {inputs: {}}", "signature.inputs must be a list"),
    ("signature: {inputs: [x]}", r"signature.inputs\[0\] must be a mapping"),
    ("signature: {input: []}", "unknown key 'input' in signature"),
    ("signature: {inputs: [{name: x, datatype: FP32}], learned: true}", "unknown key 'learned'"),
    (INPUT % "{name: x}", r"signature.inputs\[0\] needs a datatype"),
    (INPUT % "{datatype: FP32}", r"signature.inputs\[0\] needs a name"),
    (INPUT % "{name: x, datatype: float}", "no datatype 'float'; use one of BOOL"),
    (INPUT % "{name: x, datatype: FP32, dims: [1]}", "unknown key 'dims'"),
    (INPUT % "{name: x, datatype: FP32, shape: []}", "shape must list sizes"),
    (INPUT % "{name: x, datatype: FP32, shape: [-2]}", "shape must list sizes"),
    (INPUT % "{name: x, datatype: FP32, shape: [0]}", "shape must list sizes"),
    (INPUT % "{name: x, datatype: FP32, shape: [true]}", "shape must list sizes"),
    (INPUT % "{name: x, datatype: FP32, shape: 3}", "shape must list sizes"),
    (INPUT % "{name: x, datatype: FP32}, {name: x, datatype: FP32}", "gives a name twice"),
    ("signature: {kind: frame, inputs: [{name: x, datatype: FP32}]}", "signature.kind"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named(
    tmp_path: Path, text: str | bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the file, the key, and what would be right; and nothing is run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "version.yaml" in message
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert not (tmp_path / "marker").exists()


def test_an_alias_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    """A billion laughs in a few hundred bytes."""
    lines = ["metadata:", '  a0: &a0 ["lol"]']
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases"):
        read(tmp_path, "\n".join(lines))


def test_a_huge_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    """The bound is 1 MiB."""
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        read(tmp_path, b"#" * (LARGEST + 1))


@pytest.mark.parametrize("name", ["version.yml", "version.json"])
def test_a_misnamed_file_is_not_silently_ignored(tmp_path: Path, name: str) -> None:
    """Settings that would not be read are an error."""
    (tmp_path / name).write_text("instances: 2")
    with pytest.raises(ConfigError, match=f"{name} would not be read"):
        read_version_yaml(tmp_path)


def test_links_and_special_files_are_not_read(tmp_path: Path) -> None:
    """A link is not followed, a pipe does not block, a folder is told."""
    (tmp_path / "elsewhere").write_text("instances: 2")
    file = tmp_path / "version.yaml"
    file.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_version_yaml(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a plain file"):
        read_version_yaml(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="not a plain file"):
        read_version_yaml(tmp_path)


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_settings_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    """Nothing else ever comes out of it."""
    caught: ConfigError | None = None
    try:
        read(tmp_path, content)
    except ConfigError as error:
        caught = error
    assert "\n" not in str(caught)
