"""The page about records says what is on disk, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hotswap.ipc.records import Label
from hotswap.records import schema
from tests.unit.records.recorded import START, Keeping, chunk

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "records.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_column_is_described() -> None:
    """Of records and of labels."""
    described = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert {*schema.fixed().names, *schema.labels().names} <= described


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_its_examples_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    """On files of several schemas, and with one that is written meanwhile."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hotswap").mkdir()
    keeping = Keeping(tmp_path / ".hotswap")
    keeping.put(chunk("a", "b", model="fraud"), chunk("c", model="fraud", inputs=(), raws=[]))
    keeping.drain()
    keeping.compact()
    keeping.put(chunk("d", model="fraud", at=START + 9))
    keeping.label(Label("a", 0, 1.0))
    keeping.drain()
    keeping.kill()
    exec(compile(EXAMPLES[number], f"example {number}", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_examples() -> None:
    """For DuckDB, pyarrow, live segments, and all of it together."""
    assert len(EXAMPLES) == 4
