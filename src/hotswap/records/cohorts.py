"""Labels for a rollout: its requests of a stretch of arrivals, each with its label, counted once.

A stretch is counted when the time for labels of all its requests is over. What is counted is
decided by the arrival and that time alone, so counting it again gives the same, and a label that
comes later changes nothing here (reports show it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec
import numpy as np

from hotswap.core.label_evidence import Cohort, Labels, LabelStage, added, flat
from hotswap.core.routing import WHOLE
from hotswap.records import answers as answer_columns
from hotswap.records.answers import Answers
from hotswap.records.dataset import Opened, named, quoted
from hotswap.stats import auc, differences, losses, means

if TYPE_CHECKING:
    import pyarrow as pa

Floats = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, np.dtype[Any]]

_ROWS: Final = 20_000
#: Of rewards: which quantiles of the first are the ends between which they are judged.
_ENDS: Final = (0.01, 0.99)


def count(opened: Opened, cohort: Cohort, labels: Labels) -> Labels:
    """The labels' evidence with one more stretch. ``opened`` holds the model's records of at least
    that stretch.
    """
    found = answer_columns.of(opened.columns)
    state = _State(labels, cohort)
    state.expect(_expected(opened, cohort))
    for batch in _whole_requests(_labelled(opened, cohort, found)):
        state.take(_Rows(batch, cohort))
    return state.done()


# --- what is asked of the records


def _between(cohort: Cohort, alias: str = "") -> str:
    return (
        f"{alias}test = {quoted(cohort.test)} AND epoch_us({alias}time) >= {int(cohort.since * 1e6)} "
        f"AND epoch_us({alias}time) < {int(cohort.until * 1e6)}"
    )


#: Of keyed traffic only the first request of each key is divided by a coin of its own.
_FIRST: Final = """
(r.key_hash IS NULL OR r.stage IN ({paired}) OR NOT EXISTS (
  SELECT 1 FROM records e WHERE e.test = r.test AND e.key_hash = r.key_hash AND e.time < r.time))
"""


def _expected(opened: Opened, cohort: Cohort) -> list[tuple[int, bool, int]]:
    """(stage, whether the candidate's, rows) of all that could have had a label."""
    return opened.sql.execute(
        f"SELECT stage, arm = 'candidate', count(*) FROM records r WHERE {_between(cohort, 'r.')} "
        "AND stage IS NOT NULL GROUP BY ALL"
    ).fetchall()


def _labelled(opened: Opened, cohort: Cohort, found: Answers) -> Iterator[pa.RecordBatch]:
    """Rows with the label that came in time, in order of arrival."""
    columns = [
        "r.time", "r.request_id", 'r."row"', "r.version", "r.arm", "r.stage", "r.outcome",
        "r.other_version", "r.other_outcome", "l.label", "l.label_text", "l.reward",
    ]  # fmt: skip
    for name, given in _wanted(found, opened.columns).items():
        columns.append(f"{'r.' + named(given) if given else 'NULL'} AS {name}")
    window = int(cohort.maturity * 1e6)
    first = _FIRST.format(paired=", ".join(map(str, (*cohort.paired, -1))))
    query = f"""
    WITH mine AS (SELECT * FROM records r WHERE {_between(cohort, "r.")} AND r.stage IS NOT NULL
                  AND {first}),
    given AS (
      SELECT m.request_id, m."row", arg_max(a.label, a.received) AS label,
        arg_max(a.label_text, a.received) AS label_text, arg_max(a.reward, a.received) AS reward
      FROM mine m JOIN all_labels a ON a.request_id = m.request_id AND a."row" = m."row"
      WHERE epoch_us(a.received) <= epoch_us(m.time) + {window} GROUP BY ALL),
    twice AS (
      SELECT request_id, "row", count(*) AS times FROM all_records
      WHERE request_id IN (SELECT request_id FROM given) GROUP BY ALL HAVING count(*) > 1)
    SELECT {", ".join(columns)}, t.times IS NOT NULL AS ambiguous
    FROM mine r JOIN given l ON l.request_id = r.request_id AND l."row" = r."row"
    LEFT JOIN twice t ON t.request_id = r.request_id AND t."row" = r."row"
    ORDER BY r.time, r.request_id, r."row"
    """
    opened.sql.execute("SET preserve_insertion_order = true")  # the order of arrival is what counts
    yield from opened.sql.sql(query).to_arrow_reader(_ROWS)


def _whole_requests(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
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


# --- rows as arrays


class _Rows:
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
        swap = self.is_candidates[at] != candidate
        own, other = self._given["ours"][at], self._given["theirs"][at]
        return list(np.where(swap, other, own))

    def chances(self, at: Array, candidate: bool) -> list[Any]:
        """A side's probabilities, a list a row or None."""
        swap = self.is_candidates[at] != candidate
        own, other = self._given["our_chances"][at], self._given["their_chances"][at]
        return [b if swapped else a for a, b, swapped in zip(own, other, swap, strict=True)]


def _objects(values: list[Any]) -> Array:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _floats(values: Array) -> Floats:
    return np.array([np.nan if each is None else each for each in values], dtype=np.float64)


def _matrix(chances: list[Any]) -> Floats | None:
    """Probabilities as a matrix, NaN in rows without; None if nobody gave any."""
    size = max((len(each) for each in chances if each is not None), default=0)
    if size < 2:
        return None
    rows = [each if each is not None and len(each) == size else [np.nan] * size for each in chances]
    return np.array(rows, dtype=np.float64)


# --- from rows to counters


class _State:
    """`Labels` while a stretch is counted."""

    def __init__(self, labels: Labels, cohort: Cohort) -> None:
        self._cohort = cohort
        self._before = labels
        self._stages = {number: _Stage(stage) for number, stage in labels.stages.items()}
        self._scales = dict(labels.scales)
        self._means = dict(labels.means)
        self._first = {key: list(values) for key, values in labels.first.items()}
        self._low, self._high = labels.low, labels.high
        self._blocks = labels.ranking()
        self._ambiguous, self._unmatched = labels.ambiguous, labels.unmatched

    def _stage(self, number: int) -> _Stage:
        stage = self._stages.get(number)
        if stage is None:
            weight = self._cohort.weights.get(number, 0)
            stage = self._stages[number] = _Stage(LabelStage(number, weight))
        return stage

    def expect(self, rows: list[tuple[int, bool, int]]) -> None:
        """Rows that could have had a label."""
        for number, on_candidate, many in rows:
            self._stage(number).expected[bool(on_candidate)] += many

    def take(self, rows: _Rows) -> None:
        """Count a batch."""
        self._ambiguous += rows.ambiguous
        for number in np.unique(rows.stage).tolist():
            mine = rows.stage == number
            stage = self._stage(number)
            stage.labelled[0] += int((mine & ~rows.on_candidate).sum())
            stage.labelled[1] += int((mine & rows.on_candidate).sum())
        paired = np.flatnonzero(rows.paired & rows.has_label)
        alone = np.flatnonzero(~rows.in_pairs & rows.has_label)
        bases = {key.partition("*")[0] for key in self._cohort.keys} - {"auc", "reward"}
        for base in sorted(bases):
            if len(paired):
                self._take_pairs(rows, base, paired)
            if len(alone):
                self._take_arms(rows, base, alone)
        if "auc" in self._cohort.keys and len(paired):
            self._take_ranking(rows, paired)
        if "reward" in self._cohort.keys:
            self._take_rewards(rows)

    def _ratios(self, base: str) -> list[tuple[str, float]]:
        """(key, ratio) of a loss, as they were asked for."""
        found = []
        for key in self._cohort.keys:
            name, _, ratio = key.partition("*")
            if name == base:
                found.append((key, float(ratio) if ratio else 1.0))
        return found

    def _lost(self, rows: _Rows, base: str, at: Array, candidate: bool) -> Floats:
        """A side's loss on each row, NaN where it gave nothing."""
        truth = rows.truth(at)
        if base in ("absolute", "squared"):
            labels = np.array([_number(each) for each in truth])
            given = np.array([_number(each) for each in rows.predictions(at, candidate)])
            lose = losses.absolute_error if base == "absolute" else losses.squared_error
            known = ~np.isnan(labels)
            return np.where(known, lose(np.where(known, labels, 0.0), given), np.nan)
        chances = _matrix(rows.chances(at, candidate))
        if base == "accuracy":
            given_classes = rows.predictions(at, candidate)
            if all(each is None for each in given_classes) and chances is not None:
                best: list[Any] = np.nan_to_num(chances, nan=-1.0).argmax(axis=1).tolist()
                gone: Any = np.isnan(chances).any(axis=1).tolist()
                given_classes = [
                    None if lost else each for each, lost in zip(best, gone, strict=True)
                ]
            return losses.wrong(truth, given_classes)
        if chances is None:
            return np.full(len(at), np.nan)
        places = losses.places(truth, list(range(chances.shape[1])))
        if base == "log_loss":
            return losses.log_loss(places, chances)
        return losses.brier(places, chances)

    def _usable(self, rows: _Rows, base: str, at: Array) -> Array:
        """Rows whose label fits the loss: a number, or a class that has a probability."""
        if base == "accuracy":
            return at
        numbers = np.array([_number(each) for each in rows.truth(at)])
        fits = ~np.isnan(numbers)
        if base in ("log_loss", "brier"):
            # Whole numbers from 0 are places; a text belongs to no probability that is known.
            fits &= (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 10_000)
        self._unmatched += int((~fits).sum())
        usable: Array = at[fits]
        return usable

    def _take_pairs(self, rows: _Rows, base: str, at: Array) -> None:
        at = self._usable(rows, base, at)
        if not len(at):
            return
        stable, candidate = self._lost(rows, base, at, False), self._lost(rows, base, at, True)
        if base in ("absolute", "squared"):
            begin = self._freeze(base, stable)
            at, stable, candidate = at[begin:], stable[begin:], candidate[begin:]
            if not len(at):
                return
        scale = self._scales.get(base, 1.0)
        chance = np.array([_chance(rows.ids[each]) for each in at.tolist()])
        for key, ratio in self._ratios(base):
            apart = losses.scaled_difference(candidate, stable * ratio, scale * max(1.0, ratio))
            for number in np.unique(rows.stage[at]).tolist():
                mine = rows.stage[at] == number
                self._stage(number).add_pairs(key, differences.buckets(apart[mine], chance[mine]))
        both = ~np.isnan(stable) & ~np.isnan(candidate)
        for number in np.unique(rows.stage[at]).tolist():
            mine = (rows.stage[at] == number) & both
            ours, theirs = candidate[mine] / scale, stable[mine] / scale
            self._stage(number).add_sums(
                base, float(theirs.sum()), float(ours.sum()), int(mine.sum())
            )

    def _take_arms(self, rows: _Rows, base: str, at: Array) -> None:
        """One version was asked: a request's loss is the mean of its rows', as its coin was one."""
        tossed = np.array([0 < self._stage(n).weight < WHOLE for n in rows.stage[at].tolist()])
        at = self._usable(rows, base, at[tossed])
        if not len(at):
            return
        lost = np.where(
            rows.is_candidates[at],
            self._lost(rows, base, at, True),
            self._lost(rows, base, at, False),
        )
        lost = np.where(rows.failed[at], np.nan, lost)
        ours = rows.on_candidate[at]
        begin = self._freeze(base, np.where(ours, np.nan, lost), mean=True)
        scale = self._scales.get(base, 1.0)
        worst = np.where(np.isnan(lost), 1.0, np.clip(lost / scale, 0.0, 1.0))
        self._add_arms(rows, base, at[begin:], worst[begin:])

    def _add_arms(self, rows: _Rows, base: str, at: Array, worst: Floats) -> None:
        if not len(at):
            return
        _, where = np.unique(rows.requests[at].astype(str), return_inverse=True)
        sums = np.bincount(where, worst) / np.bincount(where)
        leader = np.full(len(sums), -1, dtype=np.int64)
        leader[where[::-1]] = at[::-1]
        chance = np.array([_chance(rows.ids[each]) for each in leader.tolist()])
        placed = [
            means.buckets([v], [c]) for v, c in zip(sums.tolist(), chance.tolist(), strict=True)
        ]
        for each, counts in zip(leader.tolist(), placed, strict=True):
            stage = self._stage(int(rows.stage[each]))
            stage.add_arm(base, counts, bool(rows.on_candidate[each]))

    def _freeze(self, base: str, stable: Floats, mean: bool = False) -> int:
        """From the first of stable's losses: a scale, and a mean to bet around. How many rows of
        these were used up.
        """
        needed = base in ("absolute", "squared") and base not in self._scales
        if not needed and not (mean and base not in self._means):
            return 0
        first = self._first.setdefault(base, [])
        known = np.flatnonzero(~np.isnan(stable))
        missing = losses.ENOUGH - len(first)
        first += stable[known[:missing]].tolist()
        if len(first) < losses.ENOUGH:
            return len(stable)
        if needed:
            self._scales[base] = losses.freeze_scale(first)
        scale = self._scales.get(base, 1.0)
        self._means[base] = float(np.clip(np.array(first) / scale, 0.0, 1.0).mean())
        self._first.pop(base)
        return int(known[missing - 1]) + 1 if missing > 0 else 0

    def _take_ranking(self, rows: _Rows, at: Array) -> None:
        numbers = np.array([_number(each) for each in rows.truth(at)])
        fits = ~np.isnan(numbers)
        self._unmatched += int((~fits).sum())
        at, numbers = at[fits], numbers[fits]
        sides = [_scores(rows, at, candidate) for candidate in (False, True)]
        fed = [
            (bool(label >= 0.5), stable, candidate)
            for label, stable, candidate in zip(numbers.tolist(), *sides, strict=True)
        ]
        self._blocks = auc.feed(self._blocks, fed)

    def _take_rewards(self, rows: _Rows) -> None:
        """Of the answer that was given; one that the assigned version did not give is worth least."""
        tossed = np.array(
            [0 < self._stage(n).weight < WHOLE for n in rows.stage.tolist()], dtype=bool
        )
        at = np.flatnonzero(~np.isnan(rows.rewards) & tossed)
        if not len(at):
            return
        given = rows.rewards[at]
        if self._high <= self._low:
            first = self._first.setdefault("reward", [])
            missing = losses.ENOUGH - len(first)
            first += given[:missing].tolist()
            if len(first) < losses.ENOUGH:
                return
            low, high = np.quantile(first, _ENDS).tolist()
            self._low, self._high = low, high if high > low else low + 1.0
            self._means["reward"] = self._lost_rewards(np.array(first)).mean().item()
            self._first.pop("reward")
            at, given = at[missing:], given[missing:]
        lost = np.where(rows.failed[at], 1.0, self._lost_rewards(given))
        self._add_arms(rows, "reward", at, lost)

    def _lost_rewards(self, rewards: Floats) -> Floats:
        lost: Floats = (self._high - np.clip(rewards, self._low, self._high)) / (
            self._high - self._low
        )
        return lost

    def done(self) -> Labels:
        """What there is now."""
        return Labels(
            until=self._cohort.until,
            stages={number: stage.done() for number, stage in sorted(self._stages.items())},
            scales=self._scales,
            means=self._means,
            low=self._low,
            high=self._high,
            first={key: tuple(values) for key, values in self._first.items()},
            blocks=flat(self._blocks),
            ambiguous=self._ambiguous,
            unmatched=self._unmatched,
            cohorts=self._before.cohorts + 1,
        )


def _scores(rows: _Rows, at: Array, candidate: bool) -> list[float | None]:
    """The last class' probability, else the prediction itself."""
    chances = rows.chances(at, candidate)
    if any(each is not None for each in chances):
        return [None if not each else each[-1] for each in chances]
    given = [_number(each) for each in rows.predictions(at, candidate)]
    return [None if each != each else each for each in given]


def _number(value: Any) -> float:
    """As a number; NaN for what is none."""
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _chance(name: str) -> float:
    """A number in [0, 1) that depends on the row's id alone."""
    return crc32(name.encode("utf-8", "replace")) / (1 << 32)


class _Stage:
    """`LabelStage` while it is counted."""

    def __init__(self, stage: LabelStage) -> None:
        self._stage = stage
        self.weight = stage.weight
        self.expected = list(stage.expected)
        self.labelled = list(stage.labelled)
        self._pairs = {key: dict(counts) for key, counts in stage.pairs.items()}
        self._sums = dict(stage.sums)
        self._arms = (
            {key: dict(counts) for key, counts in stage.stable.items()},
            {key: dict(counts) for key, counts in stage.candidate.items()},
        )

    def add_pairs(self, key: str, counts: Mapping[int, int]) -> None:
        self._pairs[key] = added([self._pairs.get(key, {}), counts])

    def add_sums(self, key: str, stable: float, candidate: float, rows: int) -> None:
        before = self._sums.get(key, (0.0, 0.0, 0))
        self._sums[key] = (before[0] + stable, before[1] + candidate, before[2] + rows)

    def add_arm(self, key: str, counts: Mapping[int, int], candidate: bool) -> None:
        arm = self._arms[candidate]
        arm[key] = added([arm.get(key, {}), counts])

    def done(self) -> LabelStage:
        return msgspec.structs.replace(
            self._stage,
            pairs=self._pairs,
            sums=self._sums,
            stable=self._arms[0],
            candidate=self._arms[1],
            expected=(self.expected[0], self.expected[1]),
            labelled=(self.labelled[0], self.labelled[1]),
        )


__all__ = ["Cohort", "count"]
