"""Drift over time: found where there is some, and only there; each record counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from hotswap.core.drift_views import DriftSettings
from hotswap.records.drift import look
from hotswap.records.drift_state import REFERENCE, STATE, Reference, State, load
from tests.unit.records.drifting import SETTINGS, START, Traffic, column, names


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path)


def kept(traffic: Traffic) -> State:
    state, problem = load(traffic.folder, STATE, State)
    assert state is not None
    assert not problem
    return state


def test_nothing_is_claimed_without_records(traffic: Traffic) -> None:
    """A model that was never asked has no drift, and nothing is kept of it."""
    view = traffic.look()

    assert (view.state, view.columns, view.message) == (
        "collecting", (), "no records were seen yet",
    )  # fmt: skip
    assert not traffic.folder.exists()


def test_a_reference_is_collected_first(traffic: Traffic) -> None:
    """Until there are rows enough there is nothing to be held against, over several looks."""
    traffic.serve(900)
    assert traffic.look().references[0].rows == 900
    traffic.serve(900)
    view = traffic.look()

    assert view.state == "collecting"
    assert [each.rows for each in view.references] == [1800, 1800]
    traffic.serve(900)
    view = traffic.look()
    assert view.state == "watching"
    assert [(each.rows, each.state) for each in view.references] == [(2000, "watching")] * 2
    assert view.references[0].first == pytest.approx(START, abs=5)


def test_fewer_rows_are_enough_from_now_on(traffic: Traffic) -> None:
    """The setting is lowered while a reference is collected: the next row completes it."""
    traffic.serve(900)
    traffic.look()
    fewer = msgspec.structs.replace(SETTINGS, rows=600)
    assert traffic.look(fewer).state == "collecting"
    traffic.serve(100)
    view = traffic.look(fewer)

    assert view.state == "watching"
    assert [each.rows for each in view.references] == [901, 901]


def test_columns_of_both_sides_are_watched(traffic: Traffic) -> None:
    """Inputs, predictions, and of two classes' probabilities the positive one's."""
    traffic.serve(4000)
    view = traffic.look()

    assert {each.column: (each.side, each.kind) for each in view.columns} == {
        "input_x": ("input", "number"),
        "input_kind": ("input", "category"),
        "output_predict": ("output", "number"),
        "output_predict_proba[1]": ("output", "number"),
    }
    assert column(view, "input_x").missing_reference == pytest.approx(0.2, abs=0.03)
    assert names(view) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"shift": 0.8}, "input_x"),
        ({"shift": -0.8}, "input_x"),
        ({"missing": 0.4}, "input_x"),
        ({"shares": (0.4, 0.5, 0.1)}, "input_kind"),
        ({"positive": 0.6}, "output_predict"),
    ],
)
def test_a_change_is_found_within_a_few_hundred_rows(
    traffic: Traffic, change: dict[str, Any], found: str
) -> None:
    """A shifted input, twice the missing values, other categories, other answers: each alarms."""
    traffic.serve(4000)
    traffic.look()
    traffic.serve(1500, **change)
    view = traffic.look()

    assert found in names(view)
    assert set(view.fresh) == set(names(view))
    assert {each.side for each in view.alarmed()} == {column(view, found).side}
    alarm = column(view, found)
    assert alarm.alarmed_since is not None
    assert START + 600 < alarm.alarmed_since <= traffic.now
    assert "in the reference" in alarm.cause
    assert "drifted from the reference" in view.message


def test_a_slow_ramp_is_found(traffic: Traffic) -> None:
    """A mean that creeps away, too slowly to be seen from hour to hour."""
    traffic.serve(3000)
    for hour in range(24):
        traffic.serve(600, shift=0.04 * hour)
        if traffic.look().alarmed("input"):
            break

    assert 4 < hour < 23


def test_traffic_that_stays_as_it_was_never_alarms(tmp_path: Path) -> None:
    """Half a million rows in all, of ten servers, and of the kind that references are made of."""
    coarse = msgspec.structs.replace(SETTINGS, slice_seconds=600.0)
    for seed in range(10):
        traffic = Traffic(tmp_path / str(seed), seed)
        traffic.serve(3000)
        traffic.serve(50_000, seconds=86_400)
        assert names(traffic.look(coarse)) == []


def test_what_is_within_the_tolerance_never_alarms(traffic: Traffic) -> None:
    """Shares that moved, by less than they may."""
    traffic.serve(3000)
    for _ in range(6):
        traffic.serve(4000, shift=0.12, shares=(0.63, 0.26, 0.11), positive=0.32)

    view = traffic.look()
    assert names(view) == []
    assert (column(view, "input_kind").distance or 0.0) > 0.04


def test_an_alarm_ends_when_the_change_does(traffic: Traffic) -> None:
    """It is told once, stands while the change lasts, and is over some time after it."""
    traffic.serve(3000)
    traffic.serve(2000, shift=1.0)
    view = traffic.look()
    assert view.fresh == ("input_x",)
    since = column(view, "input_x").alarmed_since

    traffic.serve(6000, shift=1.0)
    view = traffic.look()
    assert view.fresh == ()
    assert column(view, "input_x").alarmed_since == since

    traffic.serve(12_000)
    view = traffic.look()
    assert names(view) == []
    traffic.serve(2000, shift=1.0)
    assert traffic.look().fresh == ("input_x",)


def test_hours_without_records_are_no_drift(traffic: Traffic) -> None:
    """Nobody asked: nothing changed."""
    traffic.serve(4000)
    before = traffic.look()
    traffic.now += 30 * 3600
    view = traffic.look()

    assert names(view) == []
    assert view.latest == before.latest
    traffic.serve(3000)
    assert names(traffic.look()) == []


def test_when_it_is_looked_changes_nothing(tmp_path: Path) -> None:
    """Looking often, rarely, or killed in between: the state depends on the records alone."""
    states = []
    for every in (1, 4):
        traffic = Traffic(tmp_path / str(every))
        for at in range(8):
            traffic.serve(1000, seconds=333.0, shift=0.1 * at)
            if at % every == every - 1:
                traffic.look()
        states.append(kept(traffic))

    assert states[0] == states[1]
    assert states[0].input.watches["input_x"].alarmed


def test_what_was_not_written_is_counted_again(traffic: Traffic) -> None:
    """Killed before the state was written, the next look comes to the same state."""
    traffic.serve(4000)
    traffic.look()
    before = (traffic.folder / STATE).read_bytes()
    traffic.serve(3000, shift=1.0)
    view = traffic.look()
    after = (traffic.folder / STATE).read_bytes()
    (traffic.folder / STATE).write_bytes(before)
    (traffic.folder / f".{STATE}.part").write_bytes(after[:100])

    assert traffic.look() == view
    assert (traffic.folder / STATE).read_bytes() == after
    assert traffic.look().fresh == ()


def test_a_look_that_takes_too_long_is_continued_by_the_next(traffic: Traffic) -> None:
    """Each day that was counted is kept."""
    for _ in range(3):
        traffic.serve(2000, seconds=86_400)
    ticks = iter(range(1000))
    short = msgspec.structs.replace(SETTINGS, budget_seconds=2.0)
    looks = 1
    while traffic.look(short, clock=lambda: float(next(ticks))).behind:
        looks += 1

    assert looks > 2
    in_parts = kept(traffic)
    for name in (STATE, REFERENCE):
        (traffic.folder / name).unlink()
    traffic.look()
    assert kept(traffic) == in_parts


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format":1,"digest":"0","body":{}}', b"\xff\x00"])
def test_a_damaged_state_is_named_and_counted_again(traffic: Traffic, damage: bytes) -> None:
    """From the reference on, to the same state."""
    traffic.serve(4000)
    traffic.serve(2000, shift=1.0)
    traffic.look()
    before = kept(traffic)
    (traffic.folder / STATE).write_bytes(damage)
    view = traffic.look()

    assert len(view.problems) == 1
    assert "state.json of drift is damaged" in view.problems[0]
    assert kept(traffic) == before
    assert (traffic.folder / "state.damaged").read_bytes() == damage
    assert not traffic.look().problems


def test_a_damaged_reference_is_named_and_another_frozen(traffic: Traffic) -> None:
    """Of what comes from then on: what the old one was cannot be known."""
    traffic.serve(4000)
    traffic.look()
    path = traffic.folder / REFERENCE
    path.write_bytes(path.read_bytes().replace(b'"rows":2000', b'"rows":2001'))
    view = traffic.look()

    assert "reference.json of drift is damaged" in view.problems[0]
    assert view.state == "collecting"
    traffic.serve(3000, shift=1.0)
    view = traffic.look()
    assert view.state == "watching"
    assert names(view) == []


def test_a_reference_that_went_away_is_named(traffic: Traffic) -> None:
    """And another is frozen."""
    traffic.serve(4000)
    traffic.look()
    (traffic.folder / REFERENCE).unlink()
    view = traffic.look()

    assert "the reference of inputs is gone" in view.problems[0]
    assert view.references[0].rows == 0


def test_on_command_another_reference_is_frozen(traffic: Traffic) -> None:
    """What comes from then on is what is usual; alarms are over."""
    traffic.serve(4000)
    traffic.serve(2000, shift=1.0)
    assert names(traffic.look()) == ["input_x"]
    digest = traffic.look().references[0].digest
    view = traffic.look(reset=True)

    assert (view.state, names(view)) == ("collecting", [])
    traffic.serve(4000, shift=1.0)
    view = traffic.look()
    assert names(view) == []
    assert view.references[0].digest not in ("", digest)


def test_another_stable_version_has_outputs_of_its_own(traffic: Traffic) -> None:
    """Its answers are held against its own; inputs go on against the same reference."""
    traffic.serve(4000)
    view = traffic.look()
    inputs = view.references[0].digest
    traffic.serve(4000, version="v2", positive=0.8)
    view = traffic.look(stable="v2")

    assert names(view) == []
    assert [(each.version, each.state) for each in view.references] == [
        ("", "watching"), ("v2", "watching"),
    ]  # fmt: skip
    assert view.references[0].digest == inputs
    traffic.serve(2000, version="v2", positive=0.3)
    assert "output_predict" in names(traffic.look(stable="v2"))


def test_others_answers_do_not_count(traffic: Traffic) -> None:
    """A candidate may answer otherwise; its requests' inputs count all the same."""
    traffic.serve(4000)
    traffic.serve(2000, version="v2", positive=0.9, shift=1.0)
    view = traffic.look()

    assert names(view) == ["input_x"]
    assert column(view, "output_predict").n < 2500


def test_pinned_requests_do_not_count(traffic: Traffic) -> None:
    """A test that names a version is not what the world sends."""
    traffic.serve(4000)
    traffic.serve(2000, shift=2.0, more={"arm": ["pinned"] * 2000})

    assert names(traffic.look()) == []


def test_of_a_request_one_row_counts(traffic: Traffic) -> None:
    """Rows of one request are alike: a hundred of them are no hundred proofs, unless it is said."""
    traffic.serve(4000)
    rng = np.random.default_rng(5)
    means = np.repeat(rng.normal(0, 1, 40), 50)
    alike = {
        "input_x": np.where(np.repeat(rng.random(40) < 0.2, 50), np.nan, means),
        "request_id": [f"ranking-{at // 50}" for at in range(2000)],
        "row": pa.array([at % 50 for at in range(2000)], pa.int32()),
        "rows": pa.array([50] * 2000, pa.int32()),
    }
    traffic.serve(2000, more=alike)
    view = traffic.look()

    assert "input_x" not in names(view)
    assert column(view, "input_x").n < 2500
    (traffic.folder / STATE).unlink()
    (traffic.folder / REFERENCE).unlink()
    every = traffic.look(msgspec.structs.replace(SETTINGS, one_row=False))
    assert "input_x" in names(every)


def test_requests_recorded_without_inputs_have_none_missing(traffic: Traffic) -> None:
    """Where a share of the requests is recorded with inputs, the rest says nothing of them."""
    traffic.serve(4000)
    traffic.look()
    for _ in range(3):
        traffic.serve(1500, without=("input_x", "input_kind"))
        traffic.serve(500)
    view = traffic.look()

    assert names(view) == []
    assert column(view, "input_x").missing == pytest.approx(0.2, abs=0.04)


def test_a_column_that_is_not_recorded_any_more_is_not_missing(traffic: Traffic) -> None:
    """It is said; whether its values are as they were is not known."""
    traffic.serve(4000)
    traffic.look()
    traffic.serve(2000, without=("input_kind",))
    view = traffic.look()

    assert names(view) == []
    assert view.skipped == ("input_kind is not recorded any more",)


def test_a_column_of_another_type_is_not_compared(traffic: Traffic) -> None:
    """It is said."""
    traffic.serve(4000, seconds=86_400)
    traffic.look()
    traffic.serve(2000, more={"input_kind": np.arange(2000.0)})
    view = traffic.look()

    assert names(view) == []
    assert "input_kind is of another type than in the reference" in view.skipped[0]


def test_a_damaged_file_is_named_and_the_rest_counted(traffic: Traffic) -> None:
    """As in every other use of the records."""
    traffic.serve(4000)
    traffic.look()
    traffic.serve(1000)
    traffic.serve(2000, shift=1.0)
    broken = sorted(traffic.root.glob("days/*/*/*.parquet"))[1]
    data = bytearray(broken.read_bytes())
    data[200:4000] = bytes(3800)
    broken.write_bytes(bytes(data))
    view = traffic.look()

    assert any(broken.name in each for each in view.problems)
    assert names(view) == ["input_x"]


def test_false_alarms_are_a_year_of_the_traffic_away(traffic: Traffic) -> None:
    """And ten million rows, where there is little traffic; of all columns together."""
    traffic.serve(4000, seconds=86_400)
    assert traffic.look().false_alarm_rows == pytest.approx(1e7)

    busy = Traffic(traffic.root / "busy")
    busy.serve(4000, seconds=400.0)
    view = busy.look()
    assert view.false_alarm_rows == pytest.approx(10 * 365 * 86_400, rel=0.05)
    assert column(view, "input_x").needed > 20.0


def test_the_reference_is_as_small_as_it_says(traffic: Traffic) -> None:
    """Its file holds counts, never rows."""
    traffic.serve(4000)
    traffic.look()
    reference, _ = load(traffic.folder, REFERENCE, Reference)

    assert reference is not None
    assert reference.input is not None
    assert reference.input.rows == 2000
    assert all(sum(each.counts) == 2000 for each in reference.input.columns)
    assert (traffic.folder / REFERENCE).stat().st_size < 10_000


def test_only_named_columns_are_watched_if_some_are(traffic: Traffic) -> None:
    """With or without what their names begin with."""
    traffic.serve(4000)
    some = DriftSettings(rows=2000, columns=("x", "output_predict", "y"))
    view = look(traffic.root, "m", "v1", some, until=traffic.now)

    assert {each.column for each in view.columns} == {"input_x", "output_predict"}
    assert view.skipped == ("drift_columns names 'y', which the records do not have",)


def test_a_column_that_is_new_is_said(traffic: Traffic) -> None:
    """It has no reference to be held against."""
    traffic.serve(4000, seconds=86_400)
    traffic.look()
    traffic.serve(1000, more={"input_new": np.ones(1000)})
    view = traffic.look()

    assert names(view) == []
    assert view.skipped == ("input_new is not in the reference: freeze another",)


def test_another_tolerance_counts_from_now_on(traffic: Traffic) -> None:
    """The reference stays; what was within the old one may be beyond the new one."""
    traffic.serve(4000)
    traffic.serve(2000, shift=0.3)
    assert names(traffic.look()) == []
    digest = traffic.look().references[0].digest
    strict = msgspec.structs.replace(SETTINGS, tolerance=0.01)
    view = traffic.look(strict)
    assert (names(view), view.columns[0].tolerance) == ([], 0.01)
    traffic.serve(4000, shift=0.3)
    view = traffic.look(strict)
    assert names(view) == ["input_x"]
    assert view.references[0].digest != digest
    assert view.references[0].first == traffic.look(strict).references[0].first


def test_what_the_settings_change_is_for_the_next_reference(traffic: Traffic) -> None:
    """And that is said, until there is one."""
    traffic.serve(4000)
    traffic.look()
    traffic.serve(1000)
    other = msgspec.structs.replace(SETTINGS, columns=("x",), one_row=False)
    view = traffic.look(other)
    assert [each.partition(" ")[0] for each in view.skipped] == ["drift_columns", "drift_rows"]
    assert column(view, "input_kind").n > 2000
    traffic.look(other, reset=True)
    traffic.serve(4000)
    view = traffic.look(other)
    assert ([each.column for each in view.columns], view.skipped) == (["input_x"], ())


# --- what is recorded otherwise than when the reference was frozen


def test_hashes_are_not_held_against_values(traffic: Traffic) -> None:
    """From one minute to the next, in files of one day; texts and numbers."""
    traffic.serve(4000)
    traffic.look()
    hashes = np.random.default_rng(1).integers(1 << 63, size=3000).astype(np.uint64)
    traffic.serve(3000, more={"input_kind": hashes, "input_x": hashes})
    view = traffic.look()

    assert names(view) == []
    assert {each.side for each in view.columns} == {"output"}
    assert view.skipped == tuple(
        f"{name} is of another type than in the reference: freeze another"
        for name in ("input_x", "input_kind")
    )
    assert "input_x" not in {each.partition(" ")[0] for each in traffic.look(reset=True).skipped}
    traffic.serve(4000, more={"input_kind": np.resize(hashes, 4000)})
    assert "input_kind" not in {each.column for each in traffic.look().columns}


def test_hashes_are_in_no_reference(traffic: Traffic) -> None:
    """Also where half of its rows had values still."""
    traffic.serve(1500)
    traffic.look()
    hashes = np.random.default_rng(1).integers(1 << 63, size=1500).astype(np.uint64)
    traffic.serve(1500, more={"input_kind": hashes, "input_x": hashes})
    view = traffic.look()

    assert {each.side for each in view.columns} == {"output"}
    assert (
        "input_kind is hashed, or a 64-bit unsigned number: those are not watched" in view.skipped
    )


@pytest.mark.parametrize("gone", ["left out", "another type"])
def test_an_alarm_ends_with_what_it_was_about(traffic: Traffic, gone: str) -> None:
    """A column that is not recorded as it was is not shown as drifted for ever."""
    traffic.serve(4000)
    traffic.serve(2000, shares=(0.2, 0.7, 0.1))
    assert names(traffic.look()) == ["input_kind"]
    if gone == "left out":
        traffic.serve(1000, without=("input_kind",))
    else:
        traffic.serve(1000, more={"input_kind": np.arange(1000.0)})
    for _ in range(2):
        view = traffic.look()
        assert "input_kind" not in {each.column for each in view.columns}
        assert [each.partition(" is ")[0] for each in view.skipped] == ["input_kind"]
    assert kept(traffic).input.watches["input_kind"].cause == ""


def test_an_alarm_of_an_output_ends_with_its_type(traffic: Traffic) -> None:
    """Another type of answer is no drift that could be told by how much."""
    traffic.serve(4000)
    traffic.serve(2000, positive=0.7)
    assert "output_predict" in names(traffic.look())
    traffic.now = START + 86_400.0
    traffic.serve(1000, positive=0.7, more={"output_predict": ["yes"] * 1000})
    assert "output_predict" not in {each.column for each in traffic.look().columns}
    assert names(traffic.look()) == ["output_predict_proba[1]"]


def test_what_is_hidden_now_is_not_shown(traffic: Traffic) -> None:
    """At once: the newest records still have it, and its alarm says its values."""
    traffic.serve(4000)
    traffic.serve(2000, shares=(0.2, 0.7, 0.1))
    assert names(traffic.look()) == ["input_kind"]
    view = traffic.look(hidden=("kind",))

    assert {each.column for each in view.columns if each.side == "input"} == {"input_x"}
    assert view.skipped == ("input_kind is redacted or hashed now",)
    assert "kind" not in view.message
    traffic.serve(2000)
    traffic.look(hidden=("kind",))
    assert kept(traffic).input.watches["input_kind"].before == ()
    traffic.look(hidden=("kind", "x"), reset=True)
    traffic.serve(4000)
    view = traffic.look(hidden=("kind", "x"))
    assert {each.side for each in view.columns} == {"output"}
