"""``hotswap feedback``: labels from files of every form, sent in batches, whatever is wrong with some."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import Result

from hotswap.cli import feedback
from hotswap.cli.client import Client, CommandFailed
from hotswap.cli.feedback import Sending
from hotswap.cli.feedback_lines import Columns, Line, lines
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run, serving


@dataclass
class Labels:
    """Answers ``POST /feedback`` as a server does: a batch is taken whole, or refused whole."""

    batches: list[list[dict[str, Any]]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    busy: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def take(self, request: Request) -> JSONResponse:
        batch = await request.json()
        if self.busy:
            return JSONResponse({"error": "Send these again."}, self.busy.pop(0), self.headers)
        for at, each in enumerate(batch):
            if each["request_id"] in self.refused:
                return JSONResponse({"error": f"request_id is odd (entry {at})."}, 400)
        self.batches.append(batch)
        return JSONResponse({"accepted": len(batch)}, 202)

    @property
    def ids(self) -> list[str]:
        """What was taken, in order."""
        return [each["request_id"] for batch in self.batches for each in batch]


@pytest.fixture
def labels(control: FakeControl) -> Iterator[Labels]:
    plane = Labels()
    with serving(Starlette(routes=[Route("/feedback", plane.take, methods=["POST"])])) as address:
        control.details["data"] = address
        yield plane


def _read(content: bytes, name: str = "stdin", columns: Columns | None = None) -> list[Line]:
    return list(lines(io.BytesIO(content), name, columns or Columns()))


def _bodies(content: bytes, name: str = "stdin") -> list[Any]:
    found = _read(content, name)
    assert not any(line.problem for line in found), found
    return [line.body for line in found]


def _failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.mark.parametrize(
    ("content", "bodies"),
    [
        (b"request_id,label\na,1\nb,0.5\n", [("a", 1), ("b", 0.5)]),
        (
            b"\xef\xbb\xbfrequest_id, label\r\na, cat \r\n\r\nb,007\r\n",
            [("a", "cat"), ("b", "007")],
        ),
        (b"request_id,label\na," + b"9" * 5000 + b"\nb,2\n", [("a", "9" * 5000), ("b", 2)]),
        (b"label,request_id\nTrue,12\nnan,x\n,y\n", [("12", True), None, None]),
        (b'{"request_id": "a", "label": [1, null]}\n\n', [("a", [1, None])]),
        (
            b'[{"request_id": "a", "label": "x"}, {"request_id": "b", "label": null}]',
            [("a", "x"), None],
        ),
        (b" [ ] ", []),
    ],
)
def test_files_are_read(content: bytes, bodies: list[Any]) -> None:
    """CSV with a line of names, objects on lines, a list; what has no label yet is no label."""
    wanted = [b and {"request_id": b[0], "label": b[1]} for b in bodies]
    assert _bodies(content) == wanted


def test_rewards_and_rows_are_read() -> None:
    """A file may have labels and rewards, one a line."""
    content = b"request_id,row,label,reward,more\na,0,1,,x\na,1,,-2.5,y\n"
    assert _bodies(content) == [
        {"request_id": "a", "label": 1, "row": 0},
        {"request_id": "a", "reward": -2.5, "row": 1},
    ]


def test_columns_have_any_name() -> None:
    """The server is sent its own names."""
    columns = Columns("id", "bad", "gain", "line")
    csv = _read(b"id,bad,line\na,1,2\n", columns=columns)
    listed = _read(b'[{"id": "a", "bad": 1, "line": 2, "label": 9}]', columns=columns)
    assert [line.body for line in csv + listed] == [{"request_id": "a", "label": 1, "row": 2}] * 2


@pytest.mark.parametrize(
    ("content", "number", "said"),
    [
        (b"request_id,label\na,1\nb,1,2\nc,3\n", 3, "it has 3 values, and the first line has 2"),
        (b'request_id,label\na,1\n"b"x,1\nc,3\n', 3, "not valid CSV"),
        (b"request_id,label\na,1\n,1\nc,3\n", 3, "request_id must be the id"),
        (b"request_id,label\na,1\n\xff,1\nc,3\n", 3, "not UTF-8"),
        (b"request_id,label,row\na,1,0\nb,1,x\nc,3,1\n", 3, "row must be a whole number"),
        (b"request_id,label,reward\na,1,\nb,1,2\nc,3,\n", 3, "give either label or reward"),
        (b"request_id,reward\na,1\nb,x\nc,3\n", 3, "reward must be a number"),
        (b'{"request_id": "a", "label": 1}\n{"request_id"\n{"request_id": "c", "label": 1}', 2, "JSON"),
        (b'{"request_id": "a", "label": 1}\n[1]\n{"request_id": "c", "label": 1}', 2, "no object"),
        (
            b'[{"request_id": "a", "label": 1}, {"request_id": 7, "label": 1}, {"request_id": "c", "label": 1}]',
            2,
            "request_id must be",
        ),
        *(
            (
                b'{"request_id": "a", "label": 1}\n{"request_id": "b", %s}\n'
                b'{"request_id": "c", "label": 1}' % more,
                2,
                said,
            )
            for more, said in (
                (b'"label": {}', "label must be a number"),
                (b'"label": []', "label must be a number"),
                (b'"label": NaN', "label must be a number"),
                (b'"label": 1e999', "label must be a number"),
                (b'"label": [1], "row": 0', "leave row out"),
                (b'"label": 1, "row": true', "row must be"),
                (b'"reward": true', "reward must be a number"),
                (b'"label": "' + b"x" * 1024 * 1024 + b'"', "more than 1048576 characters"),
            )
        ),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_the_others_are_read(
    content: bytes, number: int, said: str
) -> None:
    """By its number; whatever is wrong with it."""
    first, bad, last = _read(content)
    assert first.body is not None
    assert last.body is not None
    assert (bad.number, bad.body) == (number, None)
    assert said in bad.problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"request_id": "a", "label": 1}, {"b" 1}, {}]', "nothing after it is read"),
        (b'[{"request_id": "a", "label": 1}, ', "the list is not closed"),
        (b'[{"request_id": "a", "label": 1}, {"request_id": "b"', "nothing after it is read"),
        (b'[{"request_id": "a", "label": 1}, "%s"]' % (b"x" * 2_000_000), "1048576 characters"),
    ],
)
def test_a_broken_list_ends_where_it_breaks(content: bytes, said: str) -> None:
    """What came before is sent; the place is named."""
    first, bad = _read(content)
    assert first.body is not None
    assert bad.number == 2
    assert said in bad.problem


def test_a_long_list_is_never_whole_in_memory() -> None:
    """Only as much is read ahead as an entry needs."""

    class Counting(io.BytesIO):
        read_so_far = 0

        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer)
            self.read_so_far += count
            return count

    entry = b'{"request_id": "abcdefgh", "label": 1},\n'
    source = Counting(b"[" + entry * 50_000 + b"]")
    found = lines(source, "stdin", Columns())
    assert next(found).body == {"request_id": "abcdefgh", "label": 1}
    assert source.read_so_far < 300_000
    assert sum(1 for _ in found) == 49_999


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"id,label\na,1\n", "no column 'request_id'; it has id, label: name it with --id-column"),
        (b"request_id,truth\na,1\n", "no column 'label' or 'reward'; it has request_id, truth"),
        (b"request_id,label,label\na,1,1\n", "the column 'label' twice"),
        (b'"request_id,label\na,1\n', "not valid CSV"),
    ],
)
def test_a_file_without_the_columns_is_refused(
    run: Run, labels: Labels, tmp_path: Path, content: bytes, said: str
) -> None:
    """Nothing of it is sent; what would help is said."""
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    assert said in _failed(run("feedback", str(file)))
    assert labels.batches == []


def test_labels_are_sent_in_batches(run: Run, labels: Labels, tmp_path: Path) -> None:
    """A thousand at a time, to the address that the control API names."""
    file = tmp_path / "labels.csv"
    file.write_text("request_id,label\n" + "".join(f"r{n},{n % 2}\n" for n in range(2500)) + "x,\n")
    result = run("feedback", str(file))
    assert result.exit_code == 0, result.output
    assert result.stdout == "sent 2,500 labels of labels.csv\n1 lines have no label yet\n"
    assert [len(batch) for batch in labels.batches] == [1000, 1000, 500]
    told = json.loads(run("feedback", str(file), "--json").stdout)
    assert told == {
        "file": "labels.csv", "sent": 2500, "accepted": 2500, "waiting": 1, "refused": 0,
        "problems": [],
    }  # fmt: skip


def test_labels_come_from_stdin(run: Run, labels: Labels) -> None:
    """Their format is told by the first character."""
    assert run("feedback", "-", input='{"request_id": "a", "label": 1}\n').exit_code == 0
    assert labels.batches == [[{"request_id": "a", "label": 1}]]


def test_what_cannot_be_sent_is_named_after_the_rest_was_sent(
    run: Run, labels: Labels, tmp_path: Path
) -> None:
    """Both what is wrong in the file and what the server refuses, by line."""
    file = tmp_path / "labels.csv"
    rows = [f"r{n},1" for n in range(20)]
    rows[4] = "only-one-value"
    file.write_text("\n".join(["request_id,label", *rows]))
    labels.refused = {"r9", "r10"}
    result = run("feedback", str(file))
    stderr = _failed(result)
    assert sorted(labels.ids) == sorted(f"r{n}" for n in range(20) if n not in (4, 9, 10))
    assert "line 6: it has 1 values" in stderr
    assert "line 11: request_id is odd (entry 0)." in stderr
    assert "error: 3 lines of labels.csv could not be sent" in stderr
    told = run("feedback", str(file), "--json")
    assert told.exit_code == 1
    assert [each["line"] for each in json.loads(told.stdout)["problems"]] == [6, 11, 12]


@pytest.mark.parametrize(
    ("bad", "refused", "line"), [(4, {"r9"}, 6), (9, {"r4"}, 6), (4, set(), 6)]
)
def test_strict_stops_at_the_first(
    run: Run, labels: Labels, tmp_path: Path, bad: int, refused: set[str], line: int
) -> None:
    """What stands before it is sent, and nothing after it."""
    file = tmp_path / "labels.csv"
    rows = [f"r{n},1" for n in range(20)]
    rows[bad] = "only-one-value"
    file.write_text("\n".join(["request_id,label", *rows]))
    labels.refused = refused
    stderr = _failed(run("feedback", str(file), "--strict"))
    assert labels.ids == ["r0", "r1", "r2", "r3"]
    assert f"line {line}: " in stderr
    assert "1 line of labels.csv could not be sent" in stderr


def test_strict_stops_between_batches(run: Run, labels: Labels, tmp_path: Path) -> None:
    """A batch that was refused is the last."""
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f'{{"request_id": "r{n}", "label": 1}}\n' for n in range(3000)))
    labels.refused = {"r1500"}
    assert "line 1501: " in _failed(run("feedback", str(file), "--strict"))
    assert labels.ids == [f"r{n}" for n in range(1500)]


def test_many_bad_lines_are_counted(run: Run, labels: Labels) -> None:
    """The first are named."""
    text = "request_id,label\n" + "x\n" * 50
    stderr = _failed(run("feedback", "-", input=text))
    assert stderr.count("it has 1 values") == feedback.NAMED
    assert "and 30 more" in stderr


def test_a_server_that_refuses_everything_is_asked_no_further(
    run: Run, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is not one line that is wrong."""
    monkeypatch.setattr(feedback, "MOST_REFUSED", 3)
    labels.refused = {f"r{n}" for n in range(50)}
    text = "request_id,label\n" + "".join(f"r{n},1\n" for n in range(50))
    stderr = _failed(run("feedback", "-", input=text))
    assert "the server refused 3 lines, the last (line 4) because: request_id is odd" in stderr


class Clock:
    """Time that goes on only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def _send(control: FakeControl, clock: Clock, address: str = "") -> None:
    with Client(address or str(control.details["data"])) as client:
        line = Line(1, {"request_id": "a", "label": 1})
        Sending(client, False, clock=clock, sleep=clock.sleep).all(iter([line]))


def test_a_busy_server_is_waited_for(control: FakeControl, labels: Labels) -> None:
    """With growing pauses, and as long as it asks for."""
    clock = Clock()
    labels.busy = [503, 429, 503]
    _send(control, clock)
    assert clock.pauses == [0.5, 1.0, 2.0]
    assert labels.ids == ["a"]
    labels.busy, labels.headers = [429], {"retry-after": "7"}
    _send(control, clock)
    assert clock.pauses[-1] == 7.0


def test_a_server_that_stays_away_is_given_up(control: FakeControl, labels: Labels) -> None:
    """What was sent is said, and that sending it again is harmless."""
    clock = Clock()
    with pytest.raises(
        CommandFailed, match=r"no server answers .* sending the file again is harmless"
    ):
        _send(control, clock, "http://127.0.0.1:9")
    assert clock.now >= feedback.PATIENCE_SECONDS


def test_other_refusals_end_it_at_once(control: FakeControl, labels: Labels) -> None:
    """A server without records, or without a token."""
    clock = Clock()
    labels.busy = [404]
    with pytest.raises(CommandFailed, match="Send these again"):
        _send(control, clock)
    assert clock.pauses == []


def test_wrong_use_is_refused(run: Run, tmp_path: Path) -> None:
    """A file that is none, and one name for two things."""
    assert "cannot be read" in _failed(run("feedback", str(tmp_path / "none.csv")))
    result = run("feedback", "-", "--row-column", "label", input="")
    assert "must differ" in _failed(result)
