"""What a worker notes of its requests, as the recorder's lines then have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotswap.core.routing import WHOLE, Split
from hotswap.ipc.frames import Failure
from hotswap.ipc.records import Label, Labels, decode
from hotswap.ipc.ring import Ring
from hotswap.records.privacy import Privacy
from hotswap.serving import notes as noted
from hotswap.serving.notes import GROUP, Notes
from tests.unit.serving.conftest import Rig, ask
from tests.unit.serving.noting import Noting, dynamic, reply, signature

TENSOR = signature([("x", "FP32", (-1, 2))])


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    return Noting(tmp_path)


def floats(*rows: tuple[float, ...]) -> dict[str, Any]:
    return {"x": np.array(rows, np.float32)}


def test_a_line_a_row(noting: Noting) -> None:
    """Each row has its place, its inputs and its own output, taken out of its batch."""
    answer = reply(1, 3, y=[0.0, 10.0, 20.0, 30.0])
    noting.add(TENSOR, floats((1, 2), (3, 4)), answer, "id-1")
    noting.notes.flush()
    first, second = noting.lines()
    assert dynamic(first) == {"input_x0": 1.0, "input_x1": 2.0, "output_y": 10.0}
    assert dynamic(second) == {"input_x0": 3.0, "input_x1": 4.0, "output_y": 20.0}
    for at, line in enumerate((first, second)):
        assert (line["request_id"], line["row"], line["rows"]) == ("id-1", at, 2)
        assert (line["version"], line["arm"], line["outcome"]) == ("v1", None, "ok")
        assert (line["latency_us"], line["queue_us"], line["compute_us"]) == (5000, 5, 7)
        assert line["probability"] is line["test"] is line["other_version"] is None
    assert abs(first["time"].timestamp() - 1e9) < 3600 * 24 * 365


def test_features_name_the_columns_of_a_single_tensor(noting: Noting) -> None:
    """Where there is a name for each."""
    named = signature([("x", "FP32", (-1, 2))], features=("age", "income"))
    noting.add(named, floats((1, 2)), reply())
    assert dynamic(noting.lines()[0]) == {"input_age": 1.0, "input_income": 2.0, "output_y": 1.0}


def test_several_inputs_have_a_column_each(noting: Noting) -> None:
    """Single values as they are, more as lists; texts, booleans, half floats and whole numbers."""
    table = signature(
        [("name", "BYTES", (-1,)), ("ok", "BOOL", (-1,)), ("half", "FP16", (-1,)),
         ("brain", "BF16", (-1,)), ("many", "INT64", (-1, 3)), ("one", "UINT8", (-1, 1)),
         ("texts", "BYTES", (-1, 2)), ("nan", "FP64", (-1,))]
    )  # fmt: skip
    inputs = {
        "name": np.array([b"B\xc3\xa9a", "ü"], object),
        "ok": np.array([True, False]),
        "half": np.array([0.5, -2.0], np.float16),
        "brain": np.array([0x3FC0, 0xBF80], np.uint16),
        "many": np.array([[1, 2, 3], [4, 5, 6]]),
        "one": np.array([[7], [8]], np.uint8),
        "texts": np.array([["a", "b"], [b"\xff", ""]], object),
        "nan": np.array([np.nan, 1.0]),
    }
    noting.add(table, inputs, reply(y=[1.0, 2.0]))
    first, second = noting.lines()
    assert np.isnan(first.pop("input_nan"))
    assert dynamic(first) == {
        "input_name": "Béa", "input_ok": True, "input_half": 0.5, "input_brain": 1.5,
        "input_many": [1, 2, 3], "input_one": 7, "input_texts": ["a", "b"], "output_y": 1.0,
    }  # fmt: skip
    assert second["input_texts"] == ["�", ""]
    assert (second["input_brain"], second["input_ok"], second["input_name"]) == (-1.0, False, "ü")


def test_outputs_of_every_kind(noting: Noting) -> None:
    """Lists, texts, booleans; half-precision words as the numbers that they are."""
    kinds = signature([("x", "FP32", (-1, 2))], [("brain", "BF16", (-1,))])
    answer = reply(
        predict=["yes", "no"], predict_proba=[[0.1, 0.9], [0.8, 0.2]], flag=[True, False],
        brain=np.array([0x3FC0, 0xBF80], np.uint16), deep=np.zeros((2, 2, 2), np.float32),
    )  # fmt: skip
    noting.add(kinds, floats((1, 2), (3, 4)), answer)
    line = noting.lines()[1]
    assert {k: v for k, v in line.items() if k.startswith("output_")} == {
        "output_predict": "no", "output_predict_proba": [0.8, 0.2], "output_flag": False,
        "output_brain": -1.0, "output_deep": [0.0] * 4,
    }  # fmt: skip


def test_what_is_huge_is_left_out(noting: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of a request, outputs of a row; the rest of the record stays."""
    monkeypatch.setattr(noted, "INPUT_BYTES", 16)
    monkeypatch.setattr(noted, "OUTPUT_BYTES", 16)
    answer = reply(y=[1.0, 2.0, 3.0], wide=np.zeros((3, 5)), text=["x" * 40] * 3)
    noting.add(TENSOR, floats((1, 2), (3, 4), (5, 6)), answer)
    noting.add(TENSOR, floats((1, 2)), reply())
    lines = noting.lines()
    assert [sorted(dynamic(line)) for line in lines[:3]] == [["output_y"]] * 3
    assert sorted(dynamic(lines[3])) == ["input_x0", "input_x1", "output_y"]


def test_outputs_in_any_memory(noting: Noting) -> None:
    """Of one piece or of several, as a model's library has them; whole batches and parts of them."""
    square = np.array([[1.0, 2.0], [3.0, 4.0]])
    for number, array in enumerate(
        (square, np.asfortranarray(square), np.repeat(square, 2, 1)[:, ::2])
    ):
        noting.add(TENSOR, floats((number, 0), (number, 1)), reply(y=array), f"r{number}")
        noting.add(TENSOR, floats((number, 2)), reply(1, 2, y=array), f"s{number}")
    lines = noting.lines()
    assert [line["output_y"] for line in lines] == [[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]] * 3


def test_large_outputs_are_put_in_piece_by_piece(tmp_path: Path) -> None:
    """A group of them is more than a ring can hold; of one that is, the rest is kept."""
    noting = Noting(tmp_path, 64 * 1024)
    for number in range(7):
        noting.add(TENSOR, floats((number, 0)), reply(y=np.zeros((1, 1500))), f"r{number}")
    noting.add(TENSOR, floats((5, 0)), reply(y=np.zeros((1, 9000))), "huge",
               other=("v2", "ok", 9000, reply(y=np.zeros((1, 9000)))))  # fmt: skip
    lines = noting.lines()
    assert noting.ring.dropped == 2  # the ring is full, then
    assert [line["request_id"] for line in lines] == ["r0", "r1", "r2", "r3", "r4", "huge"]
    assert [len(line.get("output_y", ())) for line in lines] == [1500] * 5 + [0]
    assert (lines[5]["other_version"], lines[3].get("other_output_y")) == ("v2", None)


def test_columns_are_called_as_they_were_for_the_request(noting: Noting) -> None:
    """A model may get another signature while its requests are noted, or answered."""
    before = signature([("x", "FP64", (-1, 2))], features=("age", "ssn"))
    after = signature([("x", "FP64", (-1, 3))], features=("zip", "age", "ssn"))
    swapped = signature([("x", "FP64", (-1, 2))], features=("ssn", "age"))
    for number, given in enumerate((before, after, swapped, before)):
        row = {"age": 30.0, "ssn": 123.0, "zip": 7.0}
        values = [row[name] for name in given.feature_names]
        noting.add(given, floats(tuple(values)), reply(), f"r{number}")
    lines = noting.lines(Privacy(redacted=("ssn",)))
    assert len(lines) == 4
    for line in lines:
        kept = {name: value for name, value in dynamic(line).items() if name.startswith("input_")}
        assert kept == {"input_age": 30.0} | ({"input_zip": 7.0} if "input_zip" in kept else {})


def test_requests_of_every_shape_and_version_in_one_group(noting: Noting) -> None:
    """Each line has its own inputs, outputs, version and other side, in whatever company."""
    wide = signature([("x", "FP32", (-1, 3))])
    batch = reply(0, 1, y=[1.0, 2.0, 3.0])
    again = reply(y=["a"])
    pinned = noting.notes.plain("v2", True)
    for number in range(3):
        noting.add(TENSOR, floats((number, 0)), batch, f"a{number}")
        noting.add(wide, floats((number, 0, 1)), reply(y=[5.0]), f"b{number}", model="other")
        noting.add(TENSOR, floats((number, 1)), again, f"c{number}", pinned)
        noting.add(TENSOR, floats((number, 2)), batch, f"d{number}",
                   other=("v2", "ok", 9000, reply(y=[number + 0.5])))  # fmt: skip
        noting.add(
            TENSOR, floats((number, 3)), batch, f"e{number}", other=("v2", "timeout", 1, None)
        )
        noting.add(TENSOR, floats((number, 4)), batch, f"f{number}",
                   other=("v2", "ok", 9000, reply(y=["text"])))  # fmt: skip
    lines = {line["request_id"]: line for line in noting.lines()}
    assert len(lines) == 18
    for number in range(3):
        assert [lines[f"{k}{number}"]["input_x1"] for k in "abcdef"] == [0, 0, 1, 2, 3, 4]
        assert {lines[f"{k}{number}"]["input_x0"] for k in "abcdef"} == {number}
        assert lines[f"c{number}"]["output_y"] == "a"
        assert (lines[f"c{number}"]["version"], lines[f"c{number}"]["arm"]) == ("v2", "pinned")
        told = lines[f"d{number}"]
        assert (told["other_version"], told["other_outcome"]) == ("v2", "ok")
        assert (told["other_latency_us"], told["other_output_y"]) == (9, number + 0.5)
        assert lines[f"e{number}"]["other_outcome"] == "timeout"
        assert lines[f"e{number}"].get("other_output_y") is None
        assert lines[f"f{number}"]["other_output_y"] == "text"
        assert lines[f"a{number}"]["other_version"] is None


def test_a_group_is_put_in_when_it_is_full(noting: Noting) -> None:
    """Without a tick; and a tick puts in what there is."""
    for number in range(GROUP + 1):
        noting.add(TENSOR, floats((1, 2)), reply(), str(number))
    assert noting.ring.filled
    assert sum(len(chunk.ids) for chunk in noting.chunks()) == GROUP + 1


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_a_share_of_the_requests(tmp_path: Path, share: float, kept: int) -> None:
    """By a coin for each."""
    coins = iter([(place << 64) // 10 + 1 for place in range(10)])
    notes = Noting(tmp_path, coin=lambda: next(coins), share=share).notes
    assert sum(notes.wants() for _ in range(10)) == kept
    assert notes.all == (share == 1.0)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_a_share_of_the_inputs(tmp_path: Path, share: float, kept: int) -> None:
    """The rest of the request is recorded all the same."""
    coins = iter([(place << 64) // 10 + 1 for place in range(10)])
    noting = Noting(tmp_path, coin=lambda: next(coins), input_share=share)
    for number in range(10):
        noting.add(TENSOR, floats((1, 2)), reply(), str(number))
    lines = noting.lines()
    assert len(lines) == 10
    assert sum(line.get("input_x0") is not None for line in lines) == kept


def test_a_key_is_told_by_its_hash_alone(tmp_path: Path) -> None:
    """Equal for equal keys, different with another secret; none for requests without."""
    noting = Noting(tmp_path)
    for key in (b"user-1", b"user-1", b"user-2", None):
        noting.add(TENSOR, floats((1, 2)), reply(), key=key)
    noting.notes.flush()
    assert b"user-" not in (tmp_path / "0.0").read_bytes()
    one, same, other, none = (line["key_hash"] for line in noting.lines())
    assert one == same != other
    assert none is None
    elsewhere = Notes(noting.ring, secret=b"t", wall=lambda: 0.0, coin=lambda: 0)
    assert elsewhere.hash(b"user-1") != one


def test_probabilities_are_those_of_the_moment(noting: Noting) -> None:
    """Weights that change within a stage are told, whatever was noted before."""
    split = Split("t.1", 3, "v2", "v1", 1000, "salt", 100.0, twin_weight=1000)
    notes = noting.notes
    contexts = [notes.context(split, arm, "ok", "v1", None) for arm in range(3)]
    assert [c.arm for c in contexts] == ["baseline", "twin", "candidate"]
    assert [c.probability for c in contexts] == [0.8, 0.1, 0.1]
    without = Split("t.1", 3, "v2", "v1", 1000, "salt", 100.0)
    assert notes.context(without, 0, "ok", "v1", None).probability == 0.9
    assert notes.context(split, 0, "ok", "v1", None) is contexts[0]
    for number in range(2000):
        notes.plain(f"v{number}", False)
    assert notes.context(split, 2, "error", "v1", "timeout").fallback == "timeout"


def test_labels_are_no_beat(noting: Noting) -> None:
    """What was noted before is not in the ring yet: a label must not say that it is."""
    noting.notes.flush()
    before = noting.ring.written_at
    noting.add(TENSOR, floats((1, 2)), reply())
    assert noting.notes.label([Label("r", 0, 1.0)])
    assert noting.ring.written_at == before
    (chunk, _) = next(iter(noting.ring.chunks()))
    message = decode(chunk)
    assert isinstance(message, Labels)
    assert message.labels == [Label("r", 0, 1.0)]


def test_labels_without_room_are_refused(tmp_path: Path) -> None:
    """They are not counted as dropped: who sent them is told."""
    noting = Noting(tmp_path, size=256)
    assert not noting.notes.label([Label("r" * 300, 0, 1.0)])
    assert noting.ring.dropped == 0


def test_nothing_that_fails_here_reaches_the_caller(
    noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as dropped, and the next request is noted."""
    noting.add(TENSOR, floats((1, 2)), reply(), "lost")
    with monkeypatch.context() as patch:
        patch.setattr(noted, "_chunk", lambda *_: 1 / 0)
        noting.notes.flush()
    assert noting.ring.dropped == 1
    noting.add(TENSOR, floats((1, 2)), reply(), "kept")
    assert [line["request_id"] for line in noting.lines()] == ["kept"]


# --- by a plane with hosts


def recorded(rig: Rig) -> Noting:
    """The rig's plane notes from now on."""
    noting = Noting(rig.folder)
    noting.notes = rig.plane.notes = Notes(
        Ring.create(rig.folder / "1.0", 1 << 20), secret=b"s", wall=lambda: 1e9, coin=lambda: 0
    )
    noting.ring = rig.plane.notes._ring
    return noting


async def settled(rig: Rig) -> None:
    """Every copy is done and every pair compared."""
    async with asyncio.timeout(10):
        while rig.plane.mirror.rows or rig.plane.routes["m"].leases:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_plain_request_is_noted_with_its_key(rig: Rig) -> None:
    """And one that was pinned says so."""
    await rig.serve()
    noting = recorded(rig)
    await ask(rig.plane.lease("m", None, b"key"), 1.0, 2.0)
    await ask(rig.plane.lease("m", "v1", None), 3.0)
    lines = noting.lines()
    assert [line["output_y"] for line in lines] == [2.0, 4.0, 6.0]
    assert [line["arm"] for line in lines] == [None, None, "pinned"]
    assert [line["key_hash"] is None for line in lines] == [False, False, True]


async def test_a_request_that_fails_is_not_noted(rig: Rig) -> None:
    """Nobody got an answer."""
    host = await rig.serve()
    noting = recorded(rig)
    host.fail = lambda number: Failure([number], "model", "no", "")
    with pytest.raises(Exception, match="no"):
        await ask(rig.plane.lease("m", None, None), 1.0)
    assert noting.lines() == []


async def test_an_assigned_request_says_how(rig: Rig) -> None:
    """Arm, probability, test and stage; who answered."""
    await rig.divide(weight=2_500)
    noting = recorded(rig)
    rig.coins(0, WHOLE - 1)
    await ask(rig.plane.lease("m", None, None), 1.0)
    await ask(rig.plane.lease("m", None, None), 1.0)
    lines = noting.lines()
    told = [(x["arm"], x["probability"], x["version"], x["test"], x["stage"]) for x in lines]
    assert told == [("candidate", 0.25, "v2", "t", 1), ("baseline", 0.75, "v1", "t", 1)]


async def test_a_fallback_says_why_and_what_the_candidate_did(rig: Rig) -> None:
    """The arm stays the candidate's; the version is who answered."""
    _, candidate = await rig.divide(weight=5_000)
    noting = recorded(rig)
    rig.coins(0)
    candidate.fail = lambda number: Failure([number], "model", "no", "")
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [2.0]
    (line,) = noting.lines()
    assert (line["arm"], line["version"], line["outcome"]) == ("candidate", "v1", "error")
    assert line["fallback"]
    assert (line["other_version"], line["other_outcome"]) == ("v2", "error")


async def test_a_mirrored_request_waits_for_the_shadow(rig: Rig) -> None:
    """What the candidate said is beside it; the answer went out before."""
    _, candidate = await rig.divide(weight=0, mirror=WHOLE)
    noting = recorded(rig)
    rig.coins(WHOLE - 1)
    candidate.hold = True
    candidate.factor = 3.0
    await ask(rig.plane.lease("m", None, None), 1.0, 2.0)
    assert noting.lines() == []
    await candidate.until(lambda: len(candidate.calls) == 1)
    candidate.release()
    await settled(rig)
    lines = noting.lines()
    assert [(x["output_y"], x["other_output_y"]) for x in lines] == [(2.0, 3.0), (4.0, 6.0)]
    assert {x["other_version"] for x in lines} == {"v2"}
    assert not noting.notes.waiting


async def test_what_still_waits_at_the_end_is_noted_too(rig: Rig) -> None:
    """Without what the other would have said; and once."""
    _, candidate = await rig.divide(weight=0, mirror=WHOLE)
    noting = recorded(rig)
    rig.coins(WHOLE - 1)
    candidate.hold = True
    await ask(rig.plane.lease("m", None, None), 1.0)
    await candidate.until(lambda: len(candidate.calls) == 1)
    noting.notes.finish()
    (line,) = noting.lines()
    assert (line["output_y"], line["other_version"]) == (2.0, None)
    candidate.release()
    await settled(rig)
    assert noting.lines() == []


@pytest.mark.parametrize(
    ("coin", "arm", "answer"), [(0, "candidate", 3.0), (9_000, "baseline", 2.0)]
)
async def test_a_pair_is_noted_whole(rig: Rig, coin: int, arm: str, answer: float) -> None:
    """Whichever answers, the other's side is there."""
    _, candidate = await rig.divide(weight=5_000, pair=True)
    noting = recorded(rig)
    candidate.factor = 3.0
    rig.coins(coin)
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [answer]
    await settled(rig)
    (line,) = noting.lines()
    assert (line["arm"], line["output_y"]) == (arm, answer)
    assert line["other_output_y"] == 5.0 - answer
    assert line["other_version"] == ("v1" if arm == "candidate" else "v2")


async def test_a_pair_whose_other_side_fails(rig: Rig) -> None:
    """It has an outcome and no output."""
    _, candidate = await rig.divide(weight=0, pair=True)
    noting = recorded(rig)
    rig.coins(9_000)
    candidate.fail = lambda number: Failure([number], "model", "no", "")
    await ask(rig.plane.lease("m", None, None), 1.0)
    await settled(rig)
    (line,) = noting.lines()
    assert (line["other_outcome"], line.get("other_output_y")) == ("error", None)


@pytest.mark.parametrize(("both", "other"), [(False, "v2"), (True, None)])
async def test_a_pair_of_which_the_answer_was_given_instead(
    rig: Rig, both: bool, other: str | None
) -> None:
    """Stable's second answer stands for its first, unless that failed too: then there is no pair."""
    stable, candidate = await rig.divide(weight=WHOLE, pair=True)
    noting = recorded(rig)
    rig.coins(0)

    def once(number: int) -> Failure:
        stable.fail = None
        return Failure([number], "model", "no", "")

    stable.fail = once if both else None
    candidate.fail = lambda number: Failure([number], "model", "no", "")
    assert await ask(rig.plane.lease("m", None, None), 1.0) == [2.0]
    await settled(rig)
    (line,) = noting.lines()
    assert (line["version"], line["outcome"], line["other_version"]) == ("v1", "error", other)
    assert line["fallback"]


@pytest.mark.parametrize("more", [{"weight": 5_000}, {"weight": 5_000, "pair": True},
                                  {"weight": 0, "mirror": WHOLE}])  # fmt: skip
async def test_who_gives_up_leaves_nothing_waiting(rig: Rig, more: dict[str, Any]) -> None:
    """A request that is cancelled got no answer, and is not noted."""
    baseline, candidate = await rig.divide(**more)
    noting = recorded(rig)
    rig.coins(9_000)
    baseline.hold = candidate.hold = True
    task = asyncio.create_task(ask(rig.plane.lease("m", None, None), 1.0))
    await baseline.until(lambda: len(baseline.calls) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    baseline.release()
    candidate.release()
    await settled(rig)
    assert noting.lines() == []
    assert not noting.notes.waiting
