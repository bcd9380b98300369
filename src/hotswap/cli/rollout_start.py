"""``hotswap rollout start``: ask for a rollout, or only for its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli import output, rollout_options, rollout_plan, rollout_screen, rollout_watch
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Url, segment
from hotswap.cli.rollout_find import PATH, seen
from hotswap.cli.traffic import Model, Version
from hotswap.core.rollout_views import RolloutView

_STRATEGIES = (
    "immediate",
    "gradual",
    "canary",
    "ab_test",
    "shadow",
    "champion_challenger",
    "bandit",
)


def complete_strategies(incomplete: str) -> list[str]:
    """The strategies that begin so, for the shell."""
    return [name for name in _STRATEGIES if name.startswith(incomplete)]


def start(
    model: Model,
    version: Version,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help=f"One of {', '.join(_STRATEGIES)}.",
            autocompletion=complete_strategies,
            metavar="NAME",
        ),
    ] = "canary",
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            help="Steps separated by commas: weights in percent, hold=5m, requests=500, approval, "
            "shadow=20; or a JSON list.",
            metavar="STEPS",
        ),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config", "-c", help="A setting of the strategy; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config-file",
            help="The strategy's settings as YAML or JSON; --config wins over it.",
            metavar="FILE",
        ),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(
            "--guardrail",
            "-g",
            help="A metric that can roll back, with max_ratio, max_increase or max; repeatable. "
            "It replaces the default ones. A JSON object is taken as it is.",
            metavar="METRIC:KEY=VALUE[,…]",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            help="A metric that must be shown better to promote; repeatable.",
            metavar="METRIC[:min_improvement=X]",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="The most likely a false alarm may be. Default: 0.05."),
    ] = None,
    on_running: Annotated[
        str | None,
        typer.Option(
            "--on-running",
            help="Beside a running rollout: refuse (the default), replace or queue.",
            metavar="WHAT",
        ),
    ] = None,
    on_insufficient: Annotated[
        str | None,
        typer.Option(
            "--on-insufficient",
            help="At the deadline without proof: hold (the default), extend or rollback.",
            metavar="WHAT",
        ),
    ] = None,
    bake_seconds: Annotated[
        float | None,
        typer.Option(
            "--bake-seconds",
            min=0.0,
            help="How long the version before stays warm after the promotion. Default: 600.",
            metavar="SECONDS",
        ),
    ] = None,
    watch_seconds: Annotated[
        float | None,
        typer.Option(
            "--watch-seconds",
            min=0.0,
            help="How long the new stable version is watched after that. Default: 3600.",
            metavar="SECONDS",
        ),
    ] = None,
    deadline_seconds: Annotated[
        float | None,
        typer.Option(
            "--deadline-seconds",
            min=0.0,
            help="How long a step may wait for evidence. Default: 86400.",
            metavar="SECONDS",
        ),
    ] = None,
    label_maturity_seconds: Annotated[
        float | None,
        typer.Option(
            "--label-maturity-seconds",
            help="How long after a request its label may come and still decide. Default: 86400.",
            show_default=False,
        ),
    ] = None,
    min_requests: Annotated[
        int | None,
        typer.Option(
            "--min-requests",
            min=0,
            help="How many requests the candidate must have had before it is promoted.",
            metavar="COUNT",
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms",
            help="How long the candidate may take before stable answers for it.",
            metavar="MILLISECONDS",
        ),
    ] = None,
    key_input: Annotated[
        str | None,
        typer.Option(
            "--key-input",
            help="Input whose value keeps a caller on one version, where no x-hotswap-key is sent.",
            metavar="NAME",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Makes chance repeatable.", metavar="NUMBER")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even a version that was rolled back before.")
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            help="The same key again gives the first answer again, and starts nothing.",
            metavar="KEY",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its odds; start nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow it until it is over.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Start a rollout: the version gets traffic step by step, and takes over if it is no worse.

    It is watched at every step. If it is worse it is rolled back, and whatever it fails to answer is
    answered by the version before.

    Examples:

    `hotswap rollout start fraud v2 --steps 5,25,50 --watch`

    `hotswap rollout start fraud v2 --steps 5,hold=10m,25,approval,50 --dry-run`

    `hotswap rollout start fraud v2 --guardrail latency_p99:max_ratio=1.1 --guardrail error_rate:max=0.02`

    `hotswap rollout start fraud v2 --strategy shadow -c min_requests=500 -c then=canary`
    """
    if dry_run and watch:
        raise CommandFailed("--dry-run starts nothing that --watch could follow: leave one out")
    segment(model)
    segment(version)
    body: dict[str, Any] = {"model": model, "version": version, "strategy": strategy}
    settings = rollout_options.read_config(config or [], config_file)
    optional = {
        "config": settings or None,
        "steps": rollout_options.read_steps(steps) if steps is not None else None,
        "guardrails": [rollout_options.read_metric("--guardrail", g) for g in guardrail or []]
        or None,
        "objectives": [rollout_options.read_metric("--objective", o) for o in objective or []]
        or None,
        "alpha": alpha,
        "on_running": on_running,
        "on_insufficient": on_insufficient,
        "bake_seconds": bake_seconds,
        "watch_seconds": watch_seconds,
        "deadline_seconds": deadline_seconds,
        "label_maturity_seconds": label_maturity_seconds,
        "min_requests": min_requests,
        "budget_ms": budget_ms,
        "key_input": key_input,
        "seed": seed,
        "force": force or None,
        "idempotency_key": idempotency_key,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    answer = _post(url, token, body, dry_run, as_json)
    if dry_run:
        output.emit(answer) if as_json else rollout_plan.show(answer)
    elif watch:
        rollout_watch.follow(url, token, str(answer["id"]), as_json=as_json)
    elif as_json:
        output.emit(answer)
    else:
        _started(seen(answer))


def _post(url: str, token: str | None, body: dict[str, Any], dry: bool, as_json: bool) -> Any:
    what = f"{body['model']}/{body['version']}"
    saying = f"planning the rollout of {what}" if dry else f"starting the rollout of {what}"
    with Client(url, token) as client, output.spinner(saying, as_json):
        return client.post(PATH + ("?dry_run=1" if dry else ""), body)


def _started(view: RolloutView) -> None:
    output.say(
        f"started {view.strategy} of {view.model}/{view.version}: ",
        (view.id, "bold"),
        "  ",
        (view.phase, rollout_screen.style(view.phase)),
    )
    if view.message:
        output.say(view.message)
    for warning in view.warnings:
        output.say((warning, "yellow"))
    output.say((f"follow it with: hotswap rollout watch {view.id}", "dim"))
