"""Following a rollout until it is over: live on a terminal, a line a change elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hotswap.cli import output, rollout_screen
from hotswap.cli.client import (
    DEFAULT_URL,
    AsJson,
    Client,
    CommandFailed,
    Token,
    Unreachable,
    Url,
    segment,
)
from hotswap.cli.rollout_find import PATH, Id, find, seen
from hotswap.core.rollout_views import RolloutView
from hotswap.web import phrases

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True)
class Look:
    """One look at a rollout: its answer and view, or the last ones and why there are no newer."""

    answer: dict[str, Any]
    view: RolloutView
    problem: str = ""


def watch(
    id: Id,
    until: Annotated[
        str | None,
        typer.Option("--until", help="End, with success, in this phase.", metavar="PHASE"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.0, help="Fail after so many seconds.", metavar="SECONDS"),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout until it is over.

    Exits with 0 if it ends Healthy or Completed, or reaches the phase of `--until`; with 1 if it
    ends RolledBack, Failed or Degraded, or takes longer than `--timeout`. A server that restarts is
    waited for, up to 30 seconds. Where there is no terminal, each change is one line; with `--json`,
    one JSON document a line.

    Examples:

    `hotswap rollout watch fraud`

    `hotswap rollout watch fraud --until Baking --timeout 600 && ./announce.sh`
    """
    follow(url, token, id, until, timeout, as_json)


def follow(
    url: str,
    token: str | None,
    id: str,
    until: str | None = None,
    timeout: float | None = None,
    as_json: bool = False,
) -> None:
    """Show it until it is over. Raises `CommandFailed` as `watch` says."""
    wanted = phase_named(until)
    with Client(url, token, timeout=_REQUEST_SECONDS) as client:
        first = find(client, id)
        path = f"{PATH}/{segment(str(first['id']))}"
        looks = looked(first, lambda: client.get(path), wanted, timeout)
        last = _lines(looks, as_json) if as_json or not output.on_terminal() else _live(looks)
    _judge(last, wanted)


def phase_named(text: str | None) -> str | None:
    """The phase in its own spelling. Raises `CommandFailed` if there is no such phase.

    >>> phase_named("baking"), phase_named("rolled-back"), phase_named(None)
    ('Baking', 'RolledBack', None)
    """
    if text is None:
        return None
    plain = text.lower().replace("-", "").replace("_", "")
    for phase in phrases.PHASES:
        if phase.lower() == plain:
            return phase
    raise CommandFailed(f"'{text}' is not a phase: use one of {', '.join(phrases.PHASES)}")


def looked(
    first: dict[str, Any],
    ask: Callable[[], dict[str, Any]],
    until: str | None,
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Look]:
    """Look after look, until it is in the phase ``until``, or over.

    Without ``until`` a promoted version that is still watched has come far enough.

    Raises `CommandFailed` after ``timeout`` seconds, and when nobody answered for
    `PATIENCE_SECONDS`.
    """
    began = answered = clock()
    look = Look(first, seen(first))
    while True:
        yield look
        view = look.view
        over = view.final or view.phase == until or (until is None and view.phase in phrases.ENDED)
        if over and not look.problem:
            return
        if timeout is not None and clock() - began >= timeout:
            raise CommandFailed(
                f"after {phrases.duration(timeout)}, {view.model}/{view.version} is still "
                f"{view.phase}: {view.message or 'no reason is given'}"
            )
        sleep(POLL_SECONDS)
        try:
            answer = ask()
        except Unreachable as problem:
            if clock() - answered >= PATIENCE_SECONDS:
                raise
            look = Look(look.answer, look.view, problem.message)
        else:
            answered = clock()
            look = Look(answer, seen(answer))


def _live(looks: Iterator[Look]) -> RolloutView:
    from rich.live import Live

    last: RolloutView | None = None
    console = output.stdout()
    try:
        # What is taller than the terminal cannot be drawn over: it is cut meanwhile, and the last
        # state is printed whole, also for who interrupts.
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for look in looks:
                last = look.view
                note = f"waiting for the server: {look.problem}" if look.problem else ""
                live.update(rollout_screen.screen(look.view, console.width, note), refresh=True)
    finally:
        if last is not None:
            console.print(rollout_screen.screen(last, console.width))
    return _known(last)


def _lines(looks: Iterator[Look], as_json: bool) -> RolloutView:
    last: RolloutView | None = None
    shown: object = None
    waiting = False
    for look in looks:
        last = look.view
        if look.problem:
            if not waiting and not as_json:
                output.note(f"waiting for the server: {look.problem}")
            waiting = True
            continue
        waiting = False
        state = changes(look.view)
        if state != shown:
            shown = state
            if as_json:
                print(json.dumps(look.answer), flush=True)
            else:
                output.say((rollout_screen.line(look.view), rollout_screen.style(last.phase)))
    return _known(last)


def changes(view: RolloutView) -> object:
    """What must differ to be worth a line: not the counts, which always do."""
    verdicts = tuple((metric.name, metric.verdict) for metric in view.metrics)
    return (
        view.phase,
        view.reason,
        view.attempt,
        view.generation,
        view.step,
        sorted(view.weights.items()),
        verdicts,
        len(view.history),
    )


def _known(view: RolloutView | None) -> RolloutView:
    if view is None:  # `looked` yields at least the first
        raise CommandFailed("the rollout was never seen")
    return view


def _judge(view: RolloutView, until: str | None) -> None:
    """Raises `CommandFailed` unless it ended as it should."""
    if view.phase == until or (until is None and view.phase in phrases.SUCCEEDED):
        return
    missed = f" and never became {until}" if until is not None else ""
    raise CommandFailed(
        f"{view.model}/{view.version} ended {view.phase}{missed}: {view.message or view.reason}"
    )
