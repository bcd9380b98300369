"""Rollouts and journals from JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from hotswap.errors import BadInput
from hotswap.web.reading import read_journal, read_metric, read_plan, read_rollout
from tests.unit.web.samples import journal, metric, rollout


def _json(value: object) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_a_rollout_is_read_as_it_was_written() -> None:
    """Through JSON, in which infinite ends are null."""
    view = rollout(metrics=(metric(interval=(0.5, 2.0)),))
    assert read_rollout(_json(view)) == view
    endless = read_rollout(_json(rollout(metrics=(metric(evidence=math.inf, interval=None),))))
    assert endless.metrics[0].evidence == math.inf
    half = read_rollout(_json(rollout(metrics=(metric(interval=(0.5, math.inf)),))))
    assert half.metrics[0].interval == (0.5, None)


@pytest.mark.parametrize("value", [None, [], {}, "x", {"id": 3}])
def test_what_is_no_rollout_is_refused(value: object) -> None:
    """With a sentence."""
    with pytest.raises(BadInput, match="this is not a rollout"):
        read_rollout(value)
    with pytest.raises(BadInput, match="this is not a plan"):
        read_plan(value)


def test_a_journal_is_put_in_order() -> None:
    """Whether it comes alone or in an object."""
    entries = journal()
    assert read_journal(_json(entries[::-1])) == read_journal({"journal": _json(entries)})
    assert [entry.number for entry in read_journal(_json(entries))] == list(range(1, 49))


@pytest.mark.parametrize("value", [None, {}, {"a": [], "b": []}, "x", [3]])
def test_what_is_no_journal_is_refused(value: object) -> None:
    """With a sentence."""
    with pytest.raises(BadInput, match="this is not a journal"):
        read_journal(value)


@pytest.mark.parametrize("value", [None, 3, {"name": "x"}, {"evidence": None}])
def test_what_is_no_metric_is_left_out(value: object) -> None:
    """Journals may be of another version."""
    assert read_metric(value) is None
