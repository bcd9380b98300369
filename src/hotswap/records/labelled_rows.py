"""Requests of a stretch with the labels that came in time, as arrays, whichever version answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hotswap.core.label_evidence import Cohort
from hotswap.records.answers import Answers
from hotswap.records.dataset import Opened, named, quoted

if TYPE_CHECKING:
    import pyarrow as pa

Floats = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, np.dtype[Any]]

#: A label may come so long (seconds) before its record: clocks differ, and records are written
#: late. What came earlier is another request's.
EARLY: Final = 3600.0
_ROWS: Final = 20_000


def _between(cohort: Cohort, alias: str = "") -> str:
    return (
        f"{alias}test = {quoted(cohort.test)} AND epoch_us({alias}time) >= {int(cohort.since * 1e6)} "
        f"AND epoch_us({alias}time) < {int(cohort.until * 1e6)}"
    )


#: Of keyed traffic only the first request of each key is divided by a coin of its own; with both
#: versions asked every request tells of both.
_MINE: Final = """
firsts AS (
  SELECT key_hash, min(time) AS first FROM records
  WHERE test = {test} AND key_hash IS NOT NULL GROUP BY key_hash),
mine AS (
  SELECT r.*, r.key_hash IS NULL OR r.time <= f.first AS first_of_key
  FROM records r LEFT JOIN firsts f ON f.key_hash = r.key_hash
  WHERE {between} AND r.stage IS NOT NULL AND (first_of_key OR r.stage IN ({paired})))
"""


def _mine(cohort: Cohort) -> str:
    paired = ", ".join(map(str, (*cohort.paired, -1)))
    return _MINE.format(test=quoted(cohort.test), between=_between(cohort, "r."), paired=paired)


def expected(opened: Opened, cohort: Cohort) -> list[tuple[int, bool, int]]:
    """(stage, whether the candidate's, rows) of all that could have had a label."""
    return opened.sql.execute(
        f"WITH {_mine(cohort)} SELECT stage, arm = 'candidate', count(*) FROM mine GROUP BY ALL"
    ).fetchall()


def labelled(opened: Opened, cohort: Cohort, found: Answers) -> Iterator[pa.RecordBatch]:
    """Rows with the label that came in time, in order of arrival.

    A row is ambiguous if another one's labels could be taken for its own: whatever came before or
    after it so closely that both waited for labels at one time. Not what came later than that: it
    may not be there yet, and a stretch that is counted again must give the same.
    """
    columns = [
        "r.time", "r.request_id", 'r."row"', "r.version", "r.arm", "r.stage", "r.outcome",
        "r.fallback", "r.other_version", "r.other_outcome", "r.first_of_key", "l.said.label AS label",
        "l.said.label_text AS label_text", "l.reward",
    ]  # fmt: skip
    for name, given in _wanted(found, opened.columns).items():
        columns.append(f"{'r.' + named(given) if given else 'NULL'} AS {name}")
    window, early = int(cohort.maturity * 1e6), int(EARLY * 1e6)
    query = f"""
    WITH {_mine(cohort)},
    given AS (
      SELECT m.request_id, m."row", m.time,
        arg_max({{'label': a.label, 'label_text': a.label_text}}, a.received)
          FILTER (WHERE a.label IS NOT NULL OR a.label_text IS NOT NULL) AS said,
        arg_max(a.reward, a.received) AS reward
      FROM mine m JOIN all_labels a ON a.request_id = m.request_id AND a."row" = m."row"
      WHERE epoch_us(a.received) BETWEEN epoch_us(m.time) - {early} AND epoch_us(m.time) + {window}
      GROUP BY ALL),
    twice AS (
      SELECT g.request_id, g."row", g.time
      FROM given g JOIN all_records o ON o.request_id = g.request_id AND o."row" = g."row"
      WHERE epoch_us(o.time) BETWEEN epoch_us(g.time) - {window + early}
        AND epoch_us(g.time) + {window}
      GROUP BY ALL HAVING count(*) > 1)
    SELECT {", ".join(columns)}, t.time IS NOT NULL AS ambiguous
    FROM mine r JOIN given l ON l.request_id = r.request_id AND l."row" = r."row" AND l.time = r.time
    LEFT JOIN twice t ON t.request_id = r.request_id AND t."row" = r."row" AND t.time = r.time
    ORDER BY r.time, r.request_id, r."row"
    """
    opened.sql.execute("SET preserve_insertion_order = true")  # the order of arrival is what counts
    yield from opened.sql.sql(query).to_arrow_reader(_ROWS)


def whole_requests(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """No request's rows in two pieces: its loss is one number."""
    import pyarrow as pa

    held: pa.Table | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if held is not None:
            table = pa.concat_tables([held, table])
        ids = table["request_id"]
        last, at = ids[-1], len(ids) - 1
        while at > 0 and ids[at - 1] == last:
            at -= 1
        held = table.slice(at)
        if at:
            yield table.slice(0, at)
    if held is not None:
        yield held


def _wanted(found: Answers, columns: Mapping[str, str]) -> dict[str, str]:
    """Column of the answer -> where it is, "" for nowhere."""
    wanted = {
        "ours": found.prediction,
        "theirs": found.other_prediction,
        "our_chances": found.probabilities,
        "their_chances": found.other_probabilities,
    }
    return {name: given if given in columns else "" for name, given in wanted.items()}


class LabelledRows:
    """Rows of a batch that are no puzzle, by side: ``stable`` and ``candidate`` are the versions'
    answers wherever they stand in the record.
    """

    def __init__(self, batch: pa.Table, cohort: Cohort) -> None:
        given = batch.to_pydict()
        puzzles = np.array(given["ambiguous"], dtype=bool)
        self.ambiguous = int(puzzles.sum())
        keep = ~puzzles
        self._given = {name: _objects(values)[keep] for name, values in given.items()}
        self.ids = [
            f"{request}\0{row}"
            for request, row in zip(self._given["request_id"], self._given["row"], strict=True)
        ]
        self.requests = self._given["request_id"]
        self.stage = np.array(self._given["stage"], dtype=np.int64)
        self.on_candidate = self._given["arm"] == "candidate"
        self.in_pairs = np.isin(self.stage, cohort.paired)
        there = [each is not None for each in self._given["other_version"]]
        self.paired = self.in_pairs & np.array(there, dtype=bool)
        self.is_candidates = self._given["version"] == cohort.candidate
        self.failed = self._given["outcome"] != "ok"
        self.first_of_key = np.array(self._given["first_of_key"], dtype=bool)
        # What was answered in the candidate's place is no failure of who did.
        instead = np.array([each is not None for each in self._given["fallback"]], dtype=bool)
        self._own_failed = self.in_pairs & self.failed & ~instead
        self._both_failed = self._own_failed & (self._given["other_outcome"] != "ok")
        label = self._given["label"]
        self.has_label = np.array(
            [a is not None or b is not None
             for a, b in zip(label, self._given["label_text"], strict=True)], dtype=bool
        )  # fmt: skip
        self.rewards = _floats(self._given["reward"])

    def __len__(self) -> int:
        return len(self.requests)

    def truth(self, at: Array) -> list[Any]:
        """Labels, numbers or texts."""
        numbers, texts = self._given["label"][at], self._given["label_text"][at]
        return [
            text if number is None else number for number, text in zip(numbers, texts, strict=True)
        ]

    def predictions(self, at: Array, candidate: bool) -> list[Any]:
        """A side's predictions; None where it gave none."""
        return self._side("ours", "theirs", at, candidate)

    def chances(self, at: Array, candidate: bool) -> list[Any]:
        """A side's probabilities, a list a row or None."""
        return self._side("our_chances", "their_chances", at, candidate)

    def _side(self, own: str, other: str, at: Array, candidate: bool) -> list[Any]:
        """None too where it is the record's own answer and came by no valid attempt: the other's
        would not count then, whichever of the two was answered with.
        """
        swap = self.is_candidates[at] != candidate
        gone = self._own_failed[at] & ~swap
        return [
            None if lost else theirs if swapped else ours
            for ours, theirs, swapped, lost in zip(
                self._given[own][at], self._given[other][at], swap, gone, strict=True
            )
        ]

    def comparable(self, at: Array, missing: Array) -> Array:
        """Of rows for which neither side has what is ``missing``: whether both failed. Else the
        models do not give it, which says nothing of either.
        """
        kept: Array = ~missing | self._both_failed[at]
        return kept


def _objects(values: list[Any]) -> Array:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _floats(values: Array) -> Floats:
    return np.array([np.nan if each is None else each for each in values], dtype=np.float64)


__all__ = ["EARLY", "LabelledRows", "expected", "labelled", "whole_requests"]
