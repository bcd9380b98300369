"""Labels in a file, one after another: CSV, a JSON object a line, or a JSON list. Never all at once."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import IO, Any, Final

import msgspec

from hotswap.cli.client import CommandFailed

_CHUNK: Final = 64 * 1024
#: One line, or one entry of a list.
_LONGEST: Final = 1024 * 1024
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
#: An identifier such as 007 is no number: it would come back as 7.
_PADDED: Final = re.compile(r"[+-]?0[0-9]")

#: Of more digits than any label has a number is a text, such as an identifier.
_DIGITS: Final = 300

#: What stands for a byte that is not UTF-8.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: As pandas writes them.
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "nan": None}


class Columns(msgspec.Struct, frozen=True):
    """What the file calls them."""

    id: str = "request_id"
    label: str = "label"
    reward: str = "reward"
    row: str = "row"

    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.id, self.label, self.reward, self.row)


class Line(msgspec.Struct, frozen=True):
    """One label. ``number``: of the line, or of the list's entry, from 1. ``problem``: why it cannot
    be sent; without one and without ``body``, there is no label in it yet.
    """

    number: int
    body: dict[str, Any] | None = None
    problem: str = ""


def lines(source: IO[bytes], name: str, columns: Columns) -> Generator[Line, None, None]:
    """What ``source`` holds; ``name`` (a file's, or "stdin") tells CSV, else its first character does.

    Raises `CommandFailed` for what is none of the formats, or has not the columns.
    """
    peeked = io.BufferedReader(source)  # type: ignore[type-var]
    start = peeked.peek(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    # What is not UTF-8 spoils its own line alone.
    text = io.TextIOWrapper(peeked, "utf-8-sig", "surrogateescape", newline="")
    try:
        if not start:
            raise CommandFailed(f"{name} is empty: give labels as CSV or JSON")
        if name.lower().endswith(".csv") or start not in (b"[", b"{"):
            yield from _csv(text, name, columns)
        elif start == b"[":
            yield from _list(text, columns)
        else:
            yield from _json_lines(text, columns)
    finally:  # the source is the caller's to close
        text.detach()
        peeked.detach()


def _csv(text: IO[str], name: str, columns: Columns) -> Iterator[Line]:
    reader = csv.reader(text, strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
    except csv.Error as problem:
        raise CommandFailed(f"{name} is not valid CSV: {problem}") from None
    found = ", ".join(header[:20])
    if columns.id not in header:
        raise CommandFailed(
            f"{name} has no column {columns.id!r}; it has {found}: name it with --id-column"
        )
    if columns.label not in header and columns.reward not in header:
        raise CommandFailed(
            f"{name} has no column {columns.label!r} or {columns.reward!r}; it has {found}: name it "
            "with --label-column or --reward-column"
        )
    for column in columns.names():
        if header.count(column) > 1:
            raise CommandFailed(f"{name} has the column {column!r} twice")
    places = [(n, header.index(n), n == columns.id) for n in columns.names() if n in header]
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            yield Line(reader.line_num, problem=f"it is not valid CSV: {problem}")
            continue
        number = reader.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            said = f"it has {len(cells)} values, and the first line has {len(header)}"
            yield Line(number, problem=said)
            continue
        yield _checked(number, _typed(cells, places), columns)


def _typed(cells: Sequence[str], places: Sequence[tuple[str, int, bool]]) -> dict[str, Any]:
    """What is empty is not there; the id stays text, whatever it looks like."""
    typed: dict[str, Any] = {}
    for name, at, is_text in places:
        cell = cells[at].strip()
        if cell:
            typed[name] = cell if is_text else _value(cell)
    return typed


def _value(cell: str) -> Any:
    """A number, true, false, or text; None where it is not known yet."""
    word = cell.lower()
    if word in _WORDS:
        return _WORDS[word]
    if _NUMBER.fullmatch(cell) is None or _PADDED.match(cell):
        return cell
    if len(cell) > _DIGITS:
        return cell
    return float(cell) if re.search(r"[.eE]", cell) else int(cell)


def _json_lines(text: IO[str], columns: Columns) -> Iterator[Line]:
    number = 0
    while True:
        line = text.readline(_LONGEST + 1)
        if not line:
            return
        number += 1
        if len(line) > _LONGEST:
            while line and not line.endswith("\n"):
                line = text.readline(_LONGEST)
            yield Line(number, problem=f"it has more than {_LONGEST} characters")
            continue
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield Line(number, problem=f"it is not valid JSON: {problem}")
            continue
        yield _checked(number, given, columns)


def _list(text: IO[str], columns: Columns) -> Iterator[Line]:
    """A list's entries, with no more of it in memory than one of them needs."""
    held = _Held(text)
    held.take()  # the bracket
    number = 0
    while True:
        mark = held.mark()
        if mark == "]":
            return
        if mark == ",":
            held.take()
            continue
        number += 1
        try:
            given = held.value() if mark else None
        except (ValueError, RecursionError) as problem:
            said = f"it is not valid JSON ({problem}): nothing after it is read"
            yield Line(number, problem=said)
            return
        if not mark:
            yield Line(number, problem="the list is not closed: the rest is missing")
            return
        yield _checked(number, given, columns)


class _Held:
    """The part of a JSON text that was read and not yet taken."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._held = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def mark(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if self._ended:
                return ""
            self._more()

    def take(self) -> None:
        """The next character is used."""
        self.mark()
        self._at += 1

    def value(self) -> Any:
        """The next value. Raises `ValueError` if there is none, or none that is short enough."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except ValueError:
                if self._ended:
                    raise
            else:
                if end < len(self._held) or self._ended:  # what ends with it may go on
                    self._check(end)
                    self._at = end
                    return value
            self._check(len(self._held))
            self._more()

    def _check(self, end: int) -> None:
        if end - self._at > _LONGEST:
            raise ValueError(f"or it has more than {_LONGEST} characters")

    def _more(self) -> None:
        more = self._text.read(max(_CHUNK, len(self._held) - self._at))
        self._ended = not more
        self._held, self._at = self._held[self._at :] + more, 0


def _checked(number: int, given: Any, columns: Columns) -> Line:
    """The label as the server takes it, or what is wrong with it."""
    if not isinstance(given, Mapping):
        return Line(number, problem="it is no object with a request's id and a label")
    id, row = given.get(columns.id), given.get(columns.row)
    label, reward = given.get(columns.label), given.get(columns.reward)
    problem = ""
    if not isinstance(id, str) or not id:
        problem = f"{columns.id} must be the id of a request, as text"
    elif label is None and reward is None:
        return Line(number)
    elif label is not None and reward is not None:
        problem = f"give either {columns.label} or {columns.reward}"
    elif row is not None and (isinstance(row, bool) or not isinstance(row, int) or row < 0):
        problem = f"{columns.row} must be a whole number from 0"
    elif row is not None and isinstance(label, list):
        problem = f"a list of labels has one a row: leave {columns.row} out"
    elif label is not None and not _is_label(label):
        problem = f"{columns.label} must be a number, true, false, text, or a list of them"
    elif reward is not None and not _is_number(reward):
        problem = f"{columns.reward} must be a number"
    elif not (said := f"{id}{label}").isascii() and _SURROGATE.search(said):
        problem = "it is not UTF-8 text"
    if problem:
        return Line(number, problem=problem)
    body = {"request_id": id, "label": label, "reward": reward, "row": row}
    return Line(number, {key: value for key, value in body.items() if value is not None})


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(each is None or _is_single(each) for each in value)
    return _is_single(value)


def _is_single(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1e300 and math.isfinite(value)
