"""Waiting for the rollouts of ``hotswap apply``, and judging how they ended."""

from __future__ import annotations

from typing import Any

from hotswap.cli import rollout_watch
from hotswap.cli.client import Client, CommandFailed, Unreachable, segment
from hotswap.cli.rollout_find import PATH, seen
from hotswap.core.rollout_views import RolloutView
from hotswap.web import phrases


def followed(
    url: str, token: str | None, id: str, timeout: float | None, quiet: bool
) -> dict[str, Any]:
    """Follow a rollout to its end: how it ended, and whether that is ``good``.

    Raises `Unreachable` where the server stays away.
    """
    path = f"{PATH}/{segment(id)}"
    problem = ""
    try:
        if quiet:
            _silently(url, token, path, timeout)
        else:
            rollout_watch.follow(url, token, id, timeout=timeout)
    except Unreachable:
        raise
    except CommandFailed as failure:
        problem = failure.message
    with Client(url, token) as client:
        view = seen(client.get(path))
    good = not problem and (problem := unfit(view)) == ""
    return {
        "id": view.id,
        "model": view.model,
        "version": view.version,
        "phase": view.phase,
        "reason": view.reason,
        "good": good,
        "sentence": problem or view.message,
    }


def unfit(view: RolloutView) -> str:
    """Why a rollout did not end well, "" if it did. What ended without a promotion is judged by
    its metrics, of which none may say fail.
    """
    said = f"{view.version} ended {view.phase}"
    if view.phase not in phrases.SUCCEEDED:
        return f"{said}: {view.message or view.reason}"
    if view.phase == "Completed":
        bad = [each.name for each in view.metrics if each.verdict == "fail" and not each.dry_run]
        if bad:
            return f"{said}, and worse in {', '.join(bad)}"
    return ""


def _silently(url: str, token: str | None, path: str, timeout: float | None) -> None:
    with Client(url, token, timeout=5.0) as client:
        looks = rollout_watch.looked(client.get(path), lambda: client.get(path), None, timeout)
        for _ in looks:
            pass
