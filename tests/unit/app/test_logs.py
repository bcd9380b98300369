"""Logs: one look for all, and nothing in them that clients sent."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
from hotswap.app import logs
from hotswap.errors import ModelFailed
from hotswap.server.errors import translate
logs.configure("info", "{form}", "worker-0")
failure = ModelFailed("ValueError: no")
failure.add_note("Traceback: the model's own")
translate(failure, "r-1")
def answer(secret):
    return 1 / 0
try:
    answer("what the client sent")
except ZeroDivisionError as exc:
    translate(exc, "r-2")
"""


def _lines(form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{form}", form)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stderr


def test_failures_are_logged_under_their_request_s_id() -> None:
    """A model's own traceback and ours stand in the log, one JSON object a line."""
    model, ours = [json.loads(line) for line in _lines("json").splitlines()]
    assert (model["request_id"], model["traceback"]) == ("r-1", "Traceback: the model's own")
    assert ours["request_id"] == "r-2"
    assert "ZeroDivisionError" in ours["exception"]
    assert ours["process"] == "worker-0"


def test_no_local_variable_is_logged() -> None:
    """Tracebacks for people show code, not the values that clients sent."""
    text = _lines("console")
    assert "ZeroDivisionError" in text
    assert "in answer" in text
    assert "what the client sent" not in text
