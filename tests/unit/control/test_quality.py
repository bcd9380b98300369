"""A report of what is recorded, by the process that works on records."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from hotswap.control import quality
from hotswap.control.jobs import JobRunner
from hotswap.control.recorded import Recorded
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import BadInput, Conflict, NotFound
from hotswap.web.quality import write
from tests.unit.records.judging import START, label, records


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[Recorded]:
    """Half of 200 requests answered differently by the second version, and labelled."""
    said, other = [n % 2 for n in range(200)], [int(n % 4 == 1) for n in range(200)]
    chances = [[0.8, 0.2] if not n else [0.3, 0.7] for n in said]
    others = [[0.6, 0.4] if not n else [0.1, 0.9] for n in other]
    ids = records(
        tmp_path,
        {"predict": said, "predict_proba": chances},
        {"predict": other, "predict_proba": others},
        inputs={"country": ["DE" if n % 3 else None for n in range(200)]},
    )
    label(tmp_path, ids, said)
    jobs = JobRunner([sys.executable])
    yield Recorded(tmp_path, None, jobs, jobs, lambda: 0.0, dict, lambda: jobs)
    await jobs.close()


async def test_a_report_crosses_the_process_whole(recorded: Recorded) -> None:
    """What is measured there is what is shown here."""
    found = await quality.report(recorded, "m", "v1", by="country")
    assert (found.stable, found.candidate, found.paired) == ("v1", "v2", True)
    stable, candidate = found.sides
    assert (stable.metrics["accuracy"], candidate.metrics["accuracy"]) == (1.0, 0.75)
    assert {each.name for each in found.segments} == {"DE", "missing"}
    for form in ("html", "markdown"):
        assert "75.00 %" in write(found, form)


async def test_a_stretch_of_time(recorded: Recorded) -> None:
    """The end is not included; where nothing lies between, it is said."""
    found = await quality.report(recorded, "m", "v1", since=START + 50.0, until=START + 150.0)
    assert found.coverage.rows == 100
    with pytest.raises(NotFound, match="nothing of model 'm' is recorded"):
        await quality.report(recorded, "m", "v1", since=START + 1e6)
    with pytest.raises(BadInput, match="ends before it begins"):
        await quality.report(recorded, "m", "v1", since=START + 9.0, until=START + 1.0)


async def test_an_id_that_was_used_before_is_ambiguous_in_any_stretch(recorded: Recorded) -> None:
    """Its label may be meant for the other request, which lies outside of what is asked for."""
    records(recorded.root, {"predict": [1]}, first=-3600, request_id=["r120"])
    records(recorded.root, {"predict": [1]}, first=7200, request_id=["r130"])
    found = await quality.report(recorded, "m", "v1", since=START + 100.0, until=START + 150.0)
    assert (found.coverage.rows, found.coverage.labelled, found.coverage.ambiguous) == (50, 50, 2)
    assert found.sides[0].n == 48


async def test_labels_may_be_for_what_the_report_does_not_look_at(recorded: Recorded) -> None:
    """Another time, or another model: they are unknown only where neither can be."""
    label(recorded.root, ["elsewhere"], [1])
    assert (await quality.report(recorded, "m", "v1")).coverage.unknown == 1
    for since, until in ((START + 10.0, None), (None, START + 10.0)):
        found = await quality.report(recorded, "m", "v1", since=since, until=until)
        assert found.coverage.unknown == 0
    records(recorded.root, {"predict": [1]}, model="other", request_id=["elsewhere"])
    assert (await quality.report(recorded, "m", "v1")).coverage.unknown == 0


async def test_versions_that_are_not_recorded_are_refused(recorded: Recorded) -> None:
    """So are inputs; those that there are are named."""
    with pytest.raises(BadInput, match="there are: v1, v2"):
        await quality.report(recorded, "m", "v1", versions=("v1", "v7"))
    with pytest.raises(BadInput, match="there are: country"):
        await quality.report(recorded, "m", "v1", by="age")


async def test_a_damaged_file_is_left_out_and_named(recorded: Recorded) -> None:
    """The rest is reported."""
    records(recorded.root, {"predict": [n % 7 for n in range(5000)]}, first=1000)
    newest = max((recorded.root / "days").rglob("model=m/*/*.parquet"), key=lambda p: p.name)
    data = bytearray(newest.read_bytes())
    half = len(data) // 2  # pages, not the footer that lists them
    data[4:half] = bytes(half - 4)
    newest.write_bytes(data)
    found = await quality.report(recorded, "m", "v1")
    assert found.coverage.rows == 200
    assert any(newest.name in sentence for sentence in found.skipped)


async def test_without_records_it_is_said_how_to_have_them() -> None:
    """By the setting's name."""
    with pytest.raises(Conflict, match="--records on"):
        await quality.report(None, "m", "v1")


async def test_inputs_that_are_hidden_now_are_not_shown_although_they_were_recorded(
    recorded: Recorded,
) -> None:
    """Redacting a column covers what was recorded before; hashed ones too."""
    assert any(
        "country" in each.inputs for each in (await quality.report(recorded, "m", "v1")).apart
    )
    for hiding in ({"redacted": ("country",)}, {"hashed": ("country",)}):
        now = msgspec.structs.replace(recorded, **hiding)
        found = await quality.report(now, "m", "v1", now=START + 1e9)
        assert found.apart
        assert not any("country" in each.inputs for each in found.apart)
        with pytest.raises(BadInput, match="country"):
            await quality.report(now, "m", "v1", by="country")


async def test_a_tensor_that_is_redacted_hides_its_features(recorded: Recorded) -> None:
    """They were recorded one by one, by their own names."""
    now = msgspec.structs.replace(recorded, redacted=("input",))
    signature = Signature(
        (TensorSpec("input", "BYTES", (-1, 1)),), (TensorSpec("predict", "INT64", (-1,)),),
        feature_names=("country",),
    )  # fmt: skip
    found = await quality.report(now, "m", "v1", signature=signature)
    assert found.apart
    assert not any(each.inputs for each in found.apart)
    with pytest.raises(BadInput, match="country"):
        await quality.report(now, "m", "v1", by="country", signature=signature)


async def test_labels_that_are_due(recorded: Recorded) -> None:
    """Those of rows that are older than a label takes."""
    day = msgspec.structs.replace(recorded, maturity=100.0)
    found = await quality.report(day, "m", "v1", now=START + 150.0)
    assert (found.coverage.expected, found.coverage.expected_labelled) == (50, 50)
