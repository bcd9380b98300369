"""``hotswap rollout …``: give a version traffic by evidence, and look at how it does."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hotswap.cli import output, rollout_screen
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, Token, Url, complete_models, segment
from hotswap.cli.rollout_account import report, verify
from hotswap.cli.rollout_find import PATH, Id, find, listed, seen
from hotswap.cli.rollout_start import start
from hotswap.cli.rollout_watch import watch
from hotswap.web import phrases

app = typer.Typer(
    help="Roll a version out by evidence: start, watch, steer and explain.", no_args_is_help=True
)
app.command()(start)

Generation = Annotated[
    int | None,
    typer.Option(
        "--generation",
        help="Only if this is still the rollout's generation, as 'status' shows it.",
        metavar="N",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Even if a guardrail says otherwise.")]
Why = Annotated[str, typer.Option("--why", help="Kept in the journal.", metavar="TEXT")]
Key = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="The same key again gives the first answer again, and does nothing.",
        metavar="KEY",
    ),
]


@app.command("list")
def list_(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Of this model alone.", autocompletion=complete_models, metavar="MODEL"
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """The rollouts, newest first: how far they are, and why they stopped where they did."""
    with Client(url, token) as client:
        rollouts = listed(client, model)
    if as_json:
        output.emit({"rollouts": rollouts})
        return
    if not rollouts:
        output.say("there is no rollout; start one with 'hotswap rollout start MODEL VERSION'")
        return
    rows: list[list[output.Cell]] = []
    for view in map(seen, rollouts):
        reason = phrases.cause(view.phase, view.reason)
        phase = f"{view.phase} ({reason})" if reason else view.phase
        weight = view.weights.get(view.version, 0.0)
        rows.append(
            [
                view.id,
                view.model,
                f"{view.stable or 'nothing'} → {view.version}",
                view.strategy,
                (phase, rollout_screen.style(view.phase)),
                phrases.position(view).removeprefix("step "),
                phrases.percent(weight),
                phrases.duration(view.elapsed_seconds),
            ]
        )
    columns = ["Rollout", "Model", "Versions", "Strategy", "Phase", "Step", "Traffic", "Time"]
    output.table(columns, rows, right=["Traffic", "Time"])


@app.command()
def status(id: Id, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """A rollout as it stands: steps, weights, metrics, and the sentence that says why.

    Exits with 0 whatever the phase is; `hotswap rollout watch` judges it.
    """
    with Client(url, token) as client:
        answer = find(client, id)
    if as_json:
        output.emit(answer)
    else:
        output.show(rollout_screen.screen(seen(answer), output.width()))


app.command()(watch)


@app.command()
def promote(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Skip the remaining steps: the candidate takes over.

    Refused while a guardrail says fail, unless `--force` is given. Nothing gets traffic without warm
    capacity, even so.
    """
    _command("promote", id, generation, force, why, idempotency_key, url, token, as_json)


@app.command()
def pause(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Freeze the weights. Guardrails go on acting."""
    _command("pause", id, generation, force, why, idempotency_key, url, token, as_json)


@app.command()
def resume(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Go on after a pause, or approve the step that waits for a person."""
    _command("resume", id, generation, force, why, idempotency_key, url, token, as_json)


@app.command()
def abort(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Give all traffic back to the stable version, at once. Only `retry` begins again."""
    _command("abort", id, generation, force, why, idempotency_key, url, token, as_json)


@app.command()
def retry(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Begin again at the first step, with fresh evidence, after it was rolled back or failed."""
    _command("retry", id, generation, force, why, idempotency_key, url, token, as_json)


@app.command()
def skip(
    id: Id,
    generation: Generation = None,
    force: Force = False,
    why: Why = "",
    idempotency_key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Go on to the next step without waiting for the end of this one."""
    _command("skip", id, generation, force, why, idempotency_key, url, token, as_json)


def _command(
    verb: str,
    id: str,
    generation: int | None,
    force: bool,
    why: str,
    key: str | None,
    url: str,
    token: str | None,
    as_json: bool,
) -> None:
    body: dict[str, Any] = {}
    if generation is not None:
        body["generation"] = generation
    if force:
        body["force"] = True
    if why:
        body["why"] = why
    if key is not None:
        body["idempotency_key"] = key
    with Client(url, token) as client, output.spinner(f"{verb}: {id}", as_json):
        rollout = segment(str(find(client, id)["id"]))
        answer = client.post(f"{PATH}/{rollout}/{verb}", body)
    if as_json:
        output.emit(answer)
        return
    view = seen(answer)
    reason = phrases.cause(view.phase, view.reason)
    phase = f"{view.phase} ({reason})" if reason else view.phase
    output.say(
        f"{view.id}  {view.model}/{view.version}: ",
        (phase, rollout_screen.style(view.phase)),
        f"  {rollout_screen.shares(view)}, generation {view.generation}",
    )
    if view.message:
        output.say(view.message)


app.command()(verify)
app.command()(report)
