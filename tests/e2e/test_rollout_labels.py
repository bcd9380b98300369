"""Labels that come later decide: promote, go back, over a restart, and after the promotion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.labels import Labelled, wrong_below
from tests.e2e.rollouts import Rollout, add_version, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: A label has a second to come; nothing else than what is tested decides.
BODY: dict[str, Any] = {"label_maturity_seconds": 1, "force": True}
ACCURACY: dict[str, Any] = {"metric": "accuracy", "max_increase": 0.1}
ERRORS: dict[str, Any] = {"metric": "error_rate", "max_increase": 0.2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """v1 of model ``m`` is active and wrong in a tenth; v2 in a half; v3 in none."""
    root = tmp_path_factory.mktemp("labels")
    write_version(root / "models", "m", "v1", predict=wrong_below(0.1))
    with Server(root / "models", root / "state") as server:
        add_version(server, "m", "v2", predict=wrong_below(0.5))
        add_version(server, "m", "v3", predict=wrong_below(0.0))
        yield server


def labelled(view: dict[str, Any]) -> int:
    """Rows whose labels were counted."""
    return int(max(each["n"] for each in view["metrics"] if each["name"] == "accuracy"))


def test_a_worse_challenger_goes_back_over_a_kill_of_everything(tmp_path: Path) -> None:
    """The labels that were counted before the kill stay counted, once."""
    write_version(tmp_path / "models", "m", "v1", predict=wrong_below(0.1))
    first = Server(tmp_path / "models", tmp_path / "state")
    with first:
        add_version(first, "m", "v2", predict=wrong_below(0.2))
        body = BODY | {"guardrails": [ACCURACY, ERRORS], "label_maturity_seconds": 2}
        with Labelled(first, "m") as traffic:
            rollout = Rollout.start(
                first, "m", "v2", "champion_challenger", {"min_pairs": 100_000}, **body
            )
            wait_until(lambda: labelled(rollout.view()) >= 40, "labels", 60)
            before = labelled(rollout.view())
            first.kill()
        sent = traffic.sent
    second = Server(tmp_path / "models", tmp_path / "state")
    with second, Labelled(second, "m", seed=1) as traffic:
        again = Rollout(second, {**rollout.seen, "id": rollout.id})
        wait_until(second.control_answers, "control")
        wait_until(lambda: again.look() is not None, "the rollout")
        # What was counted in the last two seconds may not have been saved: it is counted again.
        view = again.end("RolledBack", "guardrail", seconds=90)
        assert before <= labelled(view) <= sent + traffic.sent
        assert "accuracy" in view["message"]


def test_a_better_challenger_is_promoted_by_its_labels(server: Server) -> None:
    """Not before they are proof."""
    with Labelled(server, "m") as traffic:
        rollout = Rollout.start(
            server, "m", "v3", "champion_challenger", {"min_pairs": 20},
            **BODY, guardrails=[ACCURACY, ERRORS], objectives=[{"metric": "accuracy"}],
        )  # fmt: skip
        view = rollout.end("Healthy", "promoted", seconds=90)
    assert traffic.failed == 0
    (accuracy,) = [each for each in view["metrics"] if each["name"] == "accuracy"]
    assert accuracy["arms"]["candidate"]["value"] == 1.0
    assert 0.8 < accuracy["arms"]["stable"]["value"] < 1.0
    assert "have their label" in accuracy["sentence"]
    assert server.switch("m", "v1").status == 200


def test_without_labels_nothing_is_promoted_and_nothing_goes_back(server: Server) -> None:
    """It waits; everything else says go."""
    with Labelled(server, "m", label=False) as traffic:
        rollout = Rollout.start(
            server, "m", "v3", "champion_challenger", {"min_pairs": 20},
            **BODY, guardrails=[ACCURACY, ERRORS],
        )  # fmt: skip

        def waits() -> bool:
            metrics = {each["name"]: each for each in rollout.view()["metrics"]}
            return bool(metrics["error_rate"]["verdict"] == "pass")

        wait_until(waits, "proof of all but accuracy", 60)
        traffic.wait(100)
        view = rollout.view()
        assert view["phase"] in ("Progressing", "Paused")
        assert "accuracy" in view["message"]
    rollout.give("abort")
    rollout.end("RolledBack", "aborted")


def test_labels_of_before_the_promotion_take_it_back_in_the_bake(server: Server) -> None:
    """They need not have been there to promote (``required: false``), and are not lost."""
    late = ACCURACY | {"required": False}
    body = {"label_maturity_seconds": 12, "bake_seconds": 600, "force": True}
    with Labelled(server, "m") as traffic:
        rollout = Rollout.start(
            server, "m", "v2", "champion_challenger", {"min_pairs": 200},
            **body, guardrails=[late, ERRORS],
        )  # fmt: skip
        rollout.wait("Baking", seconds=60)
        view = rollout.end("RolledBack", "bake", seconds=90)
        assert "labels of before its promotion" in view["message"]
        assert traffic.failed == 0
    assert server.predict("m").headers["x-hotswap-version"] == "v1"


def test_a_canary_is_judged_by_arms(server: Server) -> None:
    """Where one version alone is asked the labels of both arms are compared."""
    late = BODY | {"label_maturity_seconds": 31 * 86400}
    refused = Rollout.ask(server, "m", "v2", "canary", {}, **late, guardrails=[ACCURACY])
    assert refused.status == 400
    assert "--records-days" in refused.error
    with Labelled(server, "m") as traffic:
        rollout = Rollout.start(
            server, "m", "v2", "canary",
            {"initial_percentage": 50, "max_percentage": 50, "evaluation_period_hours": 1},
            **BODY, guardrails=[ACCURACY, ERRORS],
        )  # fmt: skip
        view = rollout.end("RolledBack", "guardrail", seconds=90)
        assert "accuracy" in view["message"]
        assert traffic.failed == 0


def test_metrics_of_labels_need_records(tmp_path: Path) -> None:
    """A server that keeps none says so at the start."""
    write_version(tmp_path / "models", "m")
    with Server(tmp_path / "models", tmp_path / "state", "--records=off") as server:
        add_version(server, "m", "v2")
        answer = Rollout.ask(
            server, "m", "v2", "champion_challenger", {}, guardrails=[{"metric": "accuracy"}]
        )
        assert answer.status == 400
        assert "--records on" in answer.error
        sent = server.data("POST", "/feedback", {"request_id": "r", "label": 1})
        assert sent.status == 404
        assert "keeps no records" in sent.error
