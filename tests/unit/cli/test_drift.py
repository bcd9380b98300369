"""``hotswap models drift`` against a real server."""

from __future__ import annotations

import json

from hotswap.core.drift_views import ColumnDrift, DriftReference, DriftView
from hotswap.core.views import ModelView
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run

COLUMNS = (
    ColumnDrift(
        "input_amount", "input", "number", 0.31, 0.24, 0.1, 3.0, 21.0, 1_700_000_000.0,
        "above 3: 40 % of the rows, 10 % in the reference", 0.4, 0.05, 0.04, 0.02, 7200,
    ),
    ColumnDrift(
        "input_kind", "input", "category", 0.02, 0.0, 0.1, 1.0, 21.0, None, "", 0.001, 0.0002,
        0.0, 0.0, 7200,
    ),
    ColumnDrift(
        "output_predict", "output", "number", None, None, 0.1, 0.0, 21.0, None, "", None, None,
        None, 0.0, 0,
    ),
)  # fmt: skip
REFERENCE = DriftReference("input", "watching", "", 5000, 5000, 1.69e9, 1.6901e9, "d", 2)


def _known(control: FakeControl) -> None:
    control.table["m"] = ModelView("m", "v1", None, 1, None, ())
    control.drifts["m"] = DriftView(
        "m", "watching", "input_amount has drifted from the reference", 0.1, (REFERENCE,), COLUMNS,
        ("input_id is hashed",), ("a file is damaged",),
    )  # fmt: skip


def test_what_drifted_is_shown_first_and_why(run: Run, control: FakeControl) -> None:
    """Each column with its distance against the tolerance, and what is not watched."""
    _known(control)
    result = run("models", "drift", "m")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "input_amount has drifted from the reference"
    assert lines[1].startswith("reference of inputs: 5,000 rows, 2023-")
    table = [line for line in lines if "|" in line]
    assert table[0].split()[:3] == ["input_amount", "0.310", "██████|██████"]
    assert "4 % (was 2 %)" in table[0]
    assert table[1].split()[:3] == ["input_kind", "0.020", "█·····|······"]
    assert any(
        line == "input_amount: above 3: 40 % of the rows, 10 % in the reference, since "
        "2023-11-14 22:13 UTC"
        for line in lines
    )
    assert lines[-2:] == ["a file is damaged", "input_id is hashed"]


def test_programs_get_it_as_it_is(run: Run, control: FakeControl) -> None:
    """All of it."""
    _known(control)
    answer = json.loads(run("models", "drift", "m", "--json").stdout)
    assert [each["column"] for each in answer["columns"]] == [each.column for each in COLUMNS]


def test_a_new_reference_is_frozen(run: Run, control: FakeControl) -> None:
    """And how far that has come is shown."""
    _known(control)
    result = run("models", "drift", "m", "--reset")
    assert result.exit_code == 0
    assert result.stdout == "0 of the 5,000 rows of the reference of inputs are there\n"
    assert control.calls == [("reset_drift", "m")]


def test_where_it_is_not_watched_a_reset_fails(run: Run, control: FakeControl) -> None:
    """With the server's reason."""
    _known(control)
    control.drifts.clear()
    assert run("models", "drift", "m").exit_code == 0
    result = run("models", "drift", "m", "--reset")
    assert (result.exit_code, result.stderr) == (1, "error: drift is not watched here\n")
