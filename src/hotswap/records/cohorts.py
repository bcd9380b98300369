"""Labels for a rollout: its requests of a stretch of arrivals, each with its label, counted once.

A stretch is counted when the time for labels of all its requests is over. What is counted is
decided by the arrival and that time alone, so counting it again gives the same, and a label that
comes later changes nothing here (reports show it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np

from hotswap.core.label_evidence import Cohort, Labels, LabelStage, added, flat
from hotswap.core.routing import WHOLE
from hotswap.records import answers as answer_columns
from hotswap.records.dataset import Opened
from hotswap.records.labelled_rows import LabelledRows, expected, labelled, whole_requests
from hotswap.stats import auc, differences, losses, means

Floats = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, np.dtype[Any]]

#: What is shown of losses stays finite, whatever was predicted.
_LARGEST: Final = 1e150
#: Of rewards: which quantiles of the first are the ends between which they are judged.
_ENDS: Final = (0.01, 0.99)


def count(opened: Opened, cohort: Cohort, labels: Labels) -> Labels:
    """The labels' evidence with one more stretch. ``opened`` holds the model's records of at least
    that stretch.
    """
    found = answer_columns.seen(opened)
    state = _State(labels, cohort)
    state.expect(expected(opened, cohort))
    for batch in whole_requests(labelled(opened, cohort, found)):
        state.take(LabelledRows(batch, cohort))
    return state.done()


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

    def take(self, rows: LabelledRows) -> None:
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

    def _lost(self, rows: LabelledRows, base: str, at: Array, candidate: bool) -> Floats:
        """A side's loss on each row, NaN where it gave nothing."""
        truth = rows.truth(at)
        if base in ("absolute", "squared"):
            labels = np.array([_number(each) for each in truth])
            given = np.array([_number(each) for each in rows.predictions(at, candidate)])
            lose = losses.absolute_error if base == "absolute" else losses.squared_error
            known = np.isfinite(labels)
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
            return losses.wrong(truth, _classes(truth, given_classes))
        if chances is None:
            return np.full(len(at), np.nan)
        places = losses.places(truth, list(range(chances.shape[1])))
        if base == "log_loss":
            return losses.log_loss(places, chances)
        return losses.brier(places, chances)

    def _usable(self, rows: LabelledRows, base: str, at: Array) -> Array:
        """Rows whose label fits the loss: a number, or a class that has a probability."""
        if base == "accuracy":
            return at
        numbers = np.array([_number(each) for each in rows.truth(at)])
        fits = np.isfinite(numbers)
        if base in ("log_loss", "brier"):
            # Whole numbers from 0 are places; a text belongs to no probability that is known.
            fits &= (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 10_000)
        self._unmatched += int((~fits).sum())
        usable: Array = at[fits]
        return usable

    def _take_pairs(self, rows: LabelledRows, base: str, at: Array) -> None:
        at = self._usable(rows, base, at)
        if not len(at):
            return
        stable, candidate = self._lost(rows, base, at, False), self._lost(rows, base, at, True)
        kept = rows.comparable(at, np.isnan(stable) & np.isnan(candidate))
        self._unmatched += int((~kept).sum())
        at, stable, candidate = at[kept], stable[kept], candidate[kept]
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
        both = np.isfinite(stable) & np.isfinite(candidate)
        for number in np.unique(rows.stage[at]).tolist():
            mine = (rows.stage[at] == number) & both
            ours = np.minimum(candidate[mine] / scale, _LARGEST)
            theirs = np.minimum(stable[mine] / scale, _LARGEST)
            self._stage(number).add_sums(
                base, float(theirs.sum()), float(ours.sum()), int(mine.sum())
            )

    def _take_arms(self, rows: LabelledRows, base: str, at: Array) -> None:
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
        for key, ratio in self._ratios(base):
            # In a unit in which both stay in [0, 1]; "ratio times stable's" is what it is held to.
            share = np.where(ours, 1.0, ratio) / max(1.0, ratio)
            worst = np.where(np.isnan(lost), 1.0, np.clip(lost / scale * share, 0.0, 1.0))
            self._add_arms(rows, key, at[begin:], worst[begin:])

    def _add_arms(self, rows: LabelledRows, key: str, at: Array, worst: Floats) -> None:
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
            stage.add_arm(key, counts, bool(rows.on_candidate[each]))

    def _freeze(self, base: str, stable: Floats, mean: bool = False) -> int:
        """From the first of stable's losses: a scale, and a mean to bet around. How many rows of
        these were used up.
        """
        needed = base in ("absolute", "squared") and base not in self._scales
        if not needed and not (mean and base not in self._means):
            return 0
        first = self._first.setdefault(base, [])
        known = np.flatnonzero(np.isfinite(stable))
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

    def _take_ranking(self, rows: LabelledRows, at: Array) -> None:
        numbers = np.array([_number(each) for each in rows.truth(at)])
        fits = np.isfinite(numbers)
        sides = [_scores(rows, at, candidate) for candidate in (False, True)]
        missing = np.array([a is None and b is None for a, b in zip(*sides, strict=True)], bool)
        kept = fits & rows.comparable(at, missing)
        self._unmatched += int((~kept).sum())
        numbers = numbers[kept]
        sides = [[score for score, keep in zip(side, kept, strict=True) if keep] for side in sides]
        fed = [
            (bool(label >= 0.5), stable, candidate)
            for label, stable, candidate in zip(numbers.tolist(), *sides, strict=True)
        ]
        self._blocks = auc.feed(self._blocks, fed)

    def _take_rewards(self, rows: LabelledRows) -> None:
        """Of the answer that was given; one that the assigned version did not give is worth least."""
        tossed = np.array(
            [0 < self._stage(n).weight < WHOLE for n in rows.stage.tolist()], dtype=bool
        )
        # Also where both are asked: of a key's requests one was tossed for, and all are answered alike.
        at = np.flatnonzero(np.isfinite(rows.rewards) & tossed & rows.first_of_key)
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


def _matrix(chances: list[Any]) -> Floats | None:
    """Probabilities as a matrix, NaN in rows without; None if nobody gave any."""
    size = max((len(each) for each in chances if each is not None), default=0)
    if size < 2:
        return None
    rows = [each if each is not None and len(each) == size else [np.nan] * size for each in chances]
    return np.array(rows, dtype=np.float64)


def _scores(rows: LabelledRows, at: Array, candidate: bool) -> list[float | None]:
    """The last class' probability, else the prediction itself."""
    chances = rows.chances(at, candidate)
    if any(each is not None for each in chances):
        return [None if not each else each[-1] for each in chances]
    given = [_number(each) for each in rows.predictions(at, candidate)]
    return [None if each != each else each for each in given]


def _classes(truth: list[Any], given: list[Any]) -> list[Any]:
    """Predictions that are no classes are none: a score of 0.83 is not wrong where 1 is true."""
    return [
        None if isinstance(each, float) and not each.is_integer() and _whole(label) else each
        for label, each in zip(truth, given, strict=True)
    ]


def _whole(label: Any) -> bool:
    return not isinstance(label, str) and float(label).is_integer()


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
