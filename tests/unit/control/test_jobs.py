"""What comes back from the job process, whatever that is."""

from __future__ import annotations

import msgspec
import pytest

from hotswap.control.jobs import JobRunner
from hotswap.errors import LoadError


class Told(msgspec.Struct):
    """An answer that has a number."""

    apart: float


async def test_an_answer_that_is_not_what_was_asked_for_is_a_failed_job() -> None:
    """Not an error that nobody expects: JSON has no NaN, for one. The next job is done."""
    script = """
    read -r line; echo '{"id": 1, "ok": {"apart": null}}'
    read -r line; echo '{"id": 2, "ok": {"apart": 0.5}}'
    """
    runner = JobRunner(["/bin/sh", "-c", script])
    with pytest.raises(LoadError, match=r"^the report of m failed: its result .* `\$\.apart`"):
        await runner.run("the report of m", {"kind": "report"}, Told)
    assert (await runner.run("the report of m", {"kind": "report"}, Told)).apart == 0.5
    await runner.close()
