"""From rings to segments and files: nothing twice, and nothing lost but what is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotswap.ipc import ring
from hotswap.ipc.frames import Layout
from hotswap.ipc.records import Label, Other
from hotswap.ipc.ring import Ring
from hotswap.records import recording as recordings
from hotswap.records.compact import compact
from hotswap.records.privacy import Privacy
from hotswap.records.segments import read_segment
from hotswap.records.writer import Writer
from hotswap.serving.notes import Notes
from tests.unit.records.recorded import START, Keeping, chunk

Keeps = Callable[..., Keeping]


def test_everything_in_the_rings_is_written(keeping: Keeping) -> None:
    """Of every worker, model and schema; and counted."""
    keeping.put(chunk("a", "b"), chunk("c", model="n"), ring="0.0")
    keeping.put(chunk("d", features=()), chunk("e"), ring="1.0")
    assert keeping.drain() == 5
    assert keeping.ids() == ["a", "b", "d", "e"]
    assert keeping.ids("n") == ["c"]
    assert keeping.recording.counts.lines == 5
    assert keeping.drain() == 0
    assert keeping.ids() == ["a", "b", "d", "e"]


def test_what_found_no_room_is_counted(keeping: Keeping) -> None:
    """Over all rings, those of workers that are gone too."""
    keeping.ring("0.0").drop(3)
    keeping.ring("1.0").drop(4)
    keeping.drain()
    assert keeping.recording.counts.dropped == 7


@pytest.mark.parametrize("before", ["write", "second write", "release"])
def test_a_kill_anywhere_counts_nothing_twice(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Before a model's lines are written, before another's are, before the rings are told."""

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    keeping.put(chunk("early"))
    keeping.drain()
    keeping.put(chunk("a"), chunk("b", features=()), chunk("n", model="n"), ring="0.0")
    keeping.label(Label("a", 0, 1.0))
    keeping.put(chunk("c"), ring="1.0")
    writes = []
    write = Writer.write

    def counted(self: Writer, *given_: Any) -> None:
        writes.append(given_)
        if len(writes) > {"write": 0, "second write": 1}[before]:
            raise Killed
        write(self, *given_)

    with monkeypatch.context() as patch:
        if before == "release":
            patch.setattr(Ring, "release", killed)
        else:
            patch.setattr(Writer, "write", counted)
        with pytest.raises(Killed):
            keeping.drain()
    keeping.again()
    keeping.put(chunk("late"), ring="1.0")
    keeping.drain()
    assert keeping.ids() == ["a", "b", "c", "early", "late"]
    assert keeping.ids("n") == ["n"]
    assert keeping.ask("SELECT request_id, label FROM labels") == [("a", 1.0)]
    keeping.again()
    keeping.put(chunk("later"), ring="0.0")
    keeping.drain()
    assert keeping.ids() == ["a", "b", "c", "early", "late", "later"]


def test_one_batch_speaks_for_all_of_its_schema(
    keeps: Keeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that differ in what is not kept have one schema: a kill between two writes of it would
    leave out what the first said to hold.
    """
    keeping = keeps(privacy=Privacy(columns=()))
    writes = []
    write = Writer.write

    def counted(self: Writer, model: str, batch: pa.RecordBatch, *rest: Any) -> None:
        writes.append(batch.num_rows)
        write(self, model, batch, *rest)

    monkeypatch.setattr(Writer, "write", counted)
    keeping.drain()
    keeping.recording._recovering = False
    keeping.put(chunk("a"), chunk("b", inputs=(), raws=[]), chunk("c", features=()))
    keeping.drain()
    assert writes == [3]


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sampled_from(
            ["put", "put other", "drain", "kill in drain", "kill", "rotate", "compact"]
        ),
        max_size=14,
    )
)
def test_whatever_is_killed_every_record_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Whenever, and however often."""

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    keeping = Keeping(tmp_path_factory.mktemp("kept"))
    put = []
    for number, step in enumerate([*steps, "drain"]):
        if step in ("put", "put other"):
            features = ("age", "income") if step == "put" else ()
            put.append(f"r{number:02}")
            keeping.put(chunk(put[-1], features=features), ring=f"{number % 2}.0")
        elif step == "drain":
            keeping.drain()
        elif step == "kill in drain":
            release, Ring.release = Ring.release, killed  # type: ignore[method-assign]
            try:
                keeping.drain()
            except Killed:
                pass
            finally:
                Ring.release = release  # type: ignore[method-assign]
            keeping.again()
        elif step == "kill":
            keeping.again()
        elif step == "rotate":
            keeping.recording.rotate(START, everything=True)
        else:
            keeping.recording.compact(START)
    assert keeping.ids() == put
    keeping.compact()
    assert keeping.ids() == put
    keeping.kill()


def test_a_ring_that_fills_up_is_told(keeping: Keeping) -> None:
    """Before it is full."""
    keeping.put(chunk("first"))
    keeping.drain()
    many = 0
    while not keeping.recording.pressed():
        keeping.put(chunk(f"r{many}"))
        many += 1
    assert 4 * keeping.ring().filled < 2 * keeping.ring().size
    assert keeping.drain() == many
    assert not keeping.recording.pressed()


def test_what_cannot_be_read_is_left_out_and_said(keeping: Keeping) -> None:
    """Once; all that lies around it is kept."""
    for number in range(3):
        keeping.ring().put([b"\xc1 no message"], 1)
        keeping.put(chunk(f"bad{number}", raws=[b"short"]))
        keeping.put(chunk(f"good{number}"))
        keeping.drain()
    assert keeping.ids() == ["good0", "good1", "good2"]
    assert keeping.recording.counts.failed == 6
    assert len(keeping.said) == 2
    keeping.put(chunk("good3"), chunk("bad", output_raws=[]))
    keeping.again()
    keeping.drain()
    assert keeping.ids()[-1] == "good3"


def test_a_ring_that_stays_unreadable_is_given_up(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while: until then its bytes may still come."""
    monkeypatch.setattr(ring, "CHECKED", True)
    keeping.put(chunk("lost"))
    with open(keeping.rings / "0.0", "r+b") as file:
        file.seek(4096 + 20)
        file.write(b"????")
    for second in range(5):
        keeping.drain(START + second)
        assert keeping.ring().filled
    keeping.drain(START + 5)
    assert not keeping.ring().filled
    assert keeping.recording.counts.damaged == 1
    keeping.put(chunk("kept"))
    keeping.drain(START + 6)
    assert keeping.ids() == ["kept"]


def test_the_watermark_is_that_of_the_slowest_writer_that_lives(keeping: Keeping) -> None:
    """One that was silent for long has gone."""
    now = START * 1_000_000
    keeping.ring("0.0").settle(now - 400_000)
    keeping.ring("1.0").settle(now - 900_000)
    keeping.ring("2.0").settle(now - 6_000_000)
    keeping.drain()
    assert keeping.recording.counts.watermark == START - 0.9


def test_a_folder_that_cannot_be_written(keeps: Keeps) -> None:
    """What comes meanwhile is counted; it goes on when the folder can be made."""
    keeping = keeps()
    keeping.root.write_bytes(b"in the way")
    keeping.put(chunk("a", "b"))
    keeping.label(Label("a"))
    keeping.drain()
    counts = keeping.recording.counts
    assert (counts.failed, bool(counts.problem)) == (3, True)
    keeping.recording.compact(START)
    keeping.root.unlink()
    keeping.put(chunk("c"))
    keeping.drain()
    assert keeping.ids() == ["c"]
    assert keeping.recording.counts.problem == ""
    assert [said.split(":")[0] for said in keeping.said] == [
        "records cannot be written", "records are written again",
    ]  # fmt: skip


def test_a_disk_that_is_full_for_a_while(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits in the rings for it, and nothing is written twice after it."""
    keeping.put(chunk("a"))
    keeping.drain()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", full)
        patch.setattr(Path, "write_bytes", full)
        keeping.put(chunk("b", "c"))
        keeping.label(Label("a", 0, 1.0))
        keeping.drain()
        keeping.drain()
    counts = keeping.recording.counts
    assert (counts.failed, keeping.ring().filled) == (3, 0)
    assert "No space left" in counts.problem
    keeping.put(chunk("d"))
    keeping.drain()
    assert keeping.ids() == ["a", "d"]
    assert len(keeping.said) == 2


def test_labels_are_refused_while_nothing_can_be_written(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prediction cannot wait; who sends a label can send it again. Room is looked for meanwhile."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    notes = Notes(keeping.ring(), secret=b"", wall=lambda: float(START), coin=lambda: 0)
    keeping.put(chunk("a"))
    keeping.drain()
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", full)
        patch.setattr(Path, "write_bytes", full)
        keeping.put(chunk("b"))
        keeping.drain()
        assert keeping.ring().losing
        keeping.drain()
        assert keeping.ring().losing
        assert not notes.label([Label("a", 0, 1.0)])
    keeping.drain()
    assert not keeping.ring().losing
    assert notes.label([Label("a", 0, 1.0)])
    assert keeping.recording.counts.problem == ""
    assert not list(keeping.root.glob(".probe"))
    assert keeping.ids() == ["a"]


def test_labels_of_all_workers_are_in_one_order(keeping: Keeping) -> None:
    """The last that came counts, whichever ring is read first; also over a restart."""
    keeping.label(Label("a", 0, 1.0), received=START + 2, ring="0.0")
    keeping.label(Label("a", 0, 2.0), received=START + 1, ring="1.0")
    keeping.drain()
    assert keeping.ask("SELECT label FROM labels") == [(1.0,)]
    keeping.label(
        *[Label("b", at, 0.0) for at in range(1000)], Label("a", 0, 3.0), received=START + 3
    )
    keeping.drain()
    keeping.again()
    keeping.label(Label("a", 0, 4.0), received=START + 3)
    keeping.drain()
    assert keeping.ask("SELECT label FROM labels WHERE request_id = 'a'") == [(4.0,)]
    assert keeping.recording.counts.labels == 1


def test_both_sides_of_pairs_and_those_without(keeping: Keeping) -> None:
    """In one model: a column that some have is null for the others."""
    layout = (Layout("predict", "INT64", ()),)
    other = Other([0], ["v2"], ["ok"], [5000], [0], layout, [(7).to_bytes(8, "little")])
    keeping.put(chunk("a", "b", other=other), chunk("c"))
    keeping.drain()
    keeping.compact()
    sql = "SELECT request_id, other_version, other_output_predict FROM records ORDER BY 1"
    assert keeping.ask(sql) == [("a", "v2", 7), ("b", None, None), ("c", None, None)]


@pytest.mark.parametrize("model", ["labels", "segments", "days", "next", "secret", "day=1"])
def test_a_model_called_like_a_folder_of_ours(keeping: Keeping, model: str) -> None:
    """Is a model like any other."""
    keeping.put(chunk("a", model=model))
    keeping.label(Label("a", 0, 1.0))
    for _ in range(2):
        keeping.drain()
        assert keeping.ids(model) == ["a"]
        assert keeping.ask("SELECT label FROM labelled", model) == [(1.0,)]
        keeping.compact()


def test_one_failure_keeps_nothing_else_from_its_turn(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that cannot be compacted now; the others are, and old files go."""
    keeping.put(chunk("a", model="bad"), chunk("b"))
    keeping.drain()

    def fails(place: Any, model: str, segment: Any) -> str:
        if model == "bad":
            raise OSError("not now")
        return compact(place, model, segment)

    monkeypatch.setattr(recordings, "compact", fails)
    keeping.compact(START + 40 * 86400)
    assert "not now" in keeping.recording.counts.compact_problem
    assert keeping.recording.counts.retired == 1
    assert keeping.ids() == []
    assert keeping.ids("bad") == ["a"]
    monkeypatch.undo()
    keeping.compact()
    assert keeping.recording.counts.compact_problem == ""


def test_what_cannot_be_taken_elsewhere_does_not_fill_the_disk(keeps: Keeps) -> None:
    """The oldest segments go then."""
    keeping = keeps(location="memory-of-nobody://x", most_bytes=4000)
    for name in "abc":
        keeping.put(chunk(name))
        keeping.drain()
        keeping.recording.rotate(START, everything=True)
    keeping.recording.compact(START)
    assert keeping.recording.counts.retired == 2
    assert "memory-of-nobody" in keeping.recording.counts.compact_problem
    keeping.settings["location"] = None
    assert keeping.ids() == ["c"]


def test_what_was_put_aside_goes_with_its_time(keeping: Keeping) -> None:
    """Damaged or not: nothing is kept longer than was promised."""
    keeping.put(chunk("a"))
    keeping.drain()
    keeping.recording.rotate(START, everything=True)
    (segment,) = keeping.root.rglob("*.arrows")
    data = segment.read_bytes()
    for at in range(0, len(data), 8):
        segment.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
        if read_segment(segment).problem:
            break
    keeping.compact()
    assert keeping.recording.counts.damaged == 1
    (aside,) = keeping.root.rglob("*.damaged")
    now = aside.stat().st_mtime
    keeping.recording.compact(now + 29 * 86400)
    assert aside.exists()
    keeping.recording.compact(now + 31 * 86400)
    assert not aside.exists()
    assert any("damaged" in said for said in keeping.said)


def test_counts_go_on_after_a_restart(keeping: Keeping, tmp_path: Path) -> None:
    """They are given to the successor."""
    keeping.put(chunk("a"))
    keeping.drain()
    counts = keeping.recording.counts
    successor = recordings.Recording(
        keeping.rings, keeping.root, "run", Privacy(), None, 30.0, 1 << 40, print, counts
    )
    assert successor.counts.lines == 1
