"""Traffic whose truth is known and sent later: versions that are right in a known share of it."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.e2e.harness import Server, wait_until


def wrong_below(share: float) -> str:
    """A prediction that is wrong in that share: the first value says the truth, the second when."""
    return f"return ((X[:, 0] > 0.5) != (X[:, 1] < {share!r})).astype(float)"


class Labelled:
    """Sends rows to a model, and each one's label after it was answered, until the block ends.

    ``sent``: requests that were answered; ``label``: whether labels are sent.
    """

    def __init__(self, server: Server, model: str, *, seed: int = 0, label: bool = True) -> None:
        self.sent = 0
        self.failed = 0
        self._server = server
        self._model = model
        self._rng = np.random.default_rng(seed)
        self._label = label
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(30)

    def wait(self, more: int) -> None:
        """Until so many more were answered."""
        at = self.sent
        wait_until(lambda: self.sent >= at + more, f"{more} more answers")

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):  # the server may be killed in between
                self._send()

    def _send(self) -> None:
        labels: list[dict[str, Any]] = []
        for _ in range(20):
            truth = float(self._rng.integers(0, 2))
            row = (0.25 + 0.5 * truth, float(self._rng.random()))
            answer = self._server.predict(self._model, row)
            if answer.status != 200:
                self.failed += 1
                continue
            self.sent += 1
            labels.append({"request_id": answer.headers["x-request-id"], "label": truth})
        if self._label and labels:
            answer = self._server.data("POST", "/feedback", labels)
            assert answer.status == 202, answer.error
