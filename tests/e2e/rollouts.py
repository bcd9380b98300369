"""One rollout on a running server: started, watched, commanded, and its journal decided again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self

import msgspec

from hotswap.core.rollout_views import JournalView
from hotswap.core.verification import verify
from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load, Sent
from tests.e2e.tricks import write_trick

#: For evidence that counts within a test's time, and nothing to wait for afterwards.
QUICK: Final = {"bake_seconds": 0, "watch_seconds": 0}
#: One step that stays: the candidate answers a fifth until something ends it.
FIFTH: Final[dict[str, Any]] = {
    "initial_percentage": 20,
    "max_percentage": 20,
    "evaluation_period_hours": 1,
    "require_proof": False,
}


def add_version(server: Server, model: str, version: str, **trick: Any) -> None:
    """Write a version into the models folder of a running server, until it is registered."""
    assert server.models is not None
    write_version(server.models, model, version, **trick)
    wait_until(lambda: server.has_version(model, version), f"{version} to be registered")


def write_version(models: Path, model: str, version: str = "v1", **trick: Any) -> None:
    """Write a version whose sample, a row of zeros, no trick of its predictions minds."""
    settings = str(trick.pop("settings", "")) + "samples: [[0.0, 0.0]]\n"
    write_trick(models, model, version, settings=settings, **trick)


class Rollout:
    """A handle on one. Every way to its end decides its journal again."""

    def __init__(self, server: Server, view: dict[str, Any]) -> None:
        self.server = server
        self.id: str = view["id"]
        self.model: str = view["model"]
        self.seen = view

    @classmethod
    def start(
        cls,
        server: Server,
        model: str,
        version: str,
        strategy: str,
        config: Any = None,
        **body: Any,
    ) -> Self:
        """Start one; it must be accepted."""
        answer = cls.ask(server, model, version, strategy, config, **body)
        assert answer.status == 201, (answer.status, answer.error)
        return cls(server, answer.json)

    @staticmethod
    def ask(
        server: Server, model: str, version: str, strategy: str, config: Any = None, **body: Any
    ) -> Response:
        """Ask for one; the answer, whatever it is."""
        sent = {"model": model, "version": version, "strategy": strategy, "config": config or {}}
        return server.control("POST", "/api/v1/rollouts", QUICK | sent | body)

    def view(self) -> dict[str, Any]:
        """As it is shown now."""
        answer = self.server.control("GET", f"/api/v1/rollouts/{self.id}")
        assert answer.status == 200, answer
        self.seen = answer.json
        return self.seen

    def look(self) -> dict[str, Any] | None:
        """As it is shown now; None while control is away."""
        try:
            answer = self.server.control("GET", f"/api/v1/rollouts/{self.id}", seconds=5)
        except OSError:
            return None
        if answer.status != 200:
            return None
        self.seen = answer.json
        return self.seen

    @property
    def counts(self) -> dict[str, int]:
        """The counters as they are now."""
        counts: dict[str, int] = self.view()["counts"]
        return counts

    def command(self, name: str, **body: Any) -> Response:
        """Give it a command; the answer, whatever it is."""
        return self.server.control("POST", f"/api/v1/rollouts/{self.id}/{name}", body)

    def give(self, name: str, **body: Any) -> dict[str, Any]:
        """Give it a command that must be carried out."""
        answer = self.command(name, **body)
        assert answer.status == 200, (answer.status, answer.error)
        view: dict[str, Any] = answer.json
        return view

    # --- waiting

    def wait(self, *phases: str, seconds: float = 30.0) -> dict[str, Any]:
        """Until it is in one of the phases. Fails at once if it ended otherwise."""

        def there() -> dict[str, Any] | None:
            view = self.look()
            if view is None:
                return None
            assert view["phase"] in phases or not view["final"], _short(view)
            return view if view["phase"] in phases else None

        try:
            return wait_until(there, f"{'/'.join(phases)}", seconds, every=0.03)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; {_short(self.seen)}") from None

    def wait_exposed(self, percent: float, seconds: float = 30.0) -> dict[str, Any]:
        """Until the route table gives its candidate so much."""

        def shown() -> dict[str, Any] | None:
            view = self.look()
            if view is None:
                return None
            assert not view["final"], _short(view)
            return view if view["weights"].get(view["version"], 0.0) == percent else None

        return wait_until(shown, f"{percent} % of {_short(self.seen)}", seconds, every=0.03)

    def wait_counted(self, candidate: int, seconds: float = 30.0) -> dict[str, int]:
        """Until so many requests of the candidate are counted."""

        def counted() -> dict[str, int] | None:
            view = self.look()
            if view is None:
                return None
            counts: dict[str, int] = view["counts"]
            enough = counts["candidate_requests"] >= candidate
            assert enough or not view["final"], _short(view)
            return counts if enough else None

        return wait_until(counted, f"{candidate} counted requests", seconds, every=0.03)

    def end(self, phase: str, *reasons: str, seconds: float = 30.0) -> dict[str, Any]:
        """Until it is over as it should be, for one of the reasons; its journal agrees."""
        view = self.wait(phase, seconds=seconds)
        view = wait_until(
            lambda: v if (v := self.view())["final"] else None, "the end", seconds, every=0.03
        )
        assert view["phase"] == phase, _short(view)
        assert not reasons or view["reason"] in reasons, _short(view)
        self.verify()
        return view

    # --- its journal

    def journal(self) -> list[JournalView]:
        """Every entry, oldest first."""
        answer = self.server.control("GET", f"/api/v1/rollouts/{self.id}/journal")
        assert answer.status == 200, answer
        return msgspec.convert(answer.json["journal"], list[JournalView], strict=False)

    def verify(self) -> None:
        """Every decision that was written down comes out the same when it is made again."""
        entries = self.journal()
        said = verify(entries)
        assert not said.mismatches, said.mismatches
        assert said.decisions > 0 or entries[-1].phase == "Preparing"
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))


def _short(view: dict[str, Any]) -> str:
    names = ("phase", "reason", "message", "step", "weights", "counts")
    return str({name: view.get(name) for name in names})


def fell_back(load: Load, version: str, stable: str) -> list[Sent]:
    """The requests that stable answered for a candidate; each says so, and by whom."""
    found = [sent for sent in load.sent if sent.fallback]
    assert {sent.version for sent in found} <= {stable}, found[:3]
    assert {sent.version for sent in load.sent if sent.status == 200} <= {stable, version}
    return found
