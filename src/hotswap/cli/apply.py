"""``hotswap apply``: make a server as ``hotswap.yaml`` wants it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from hotswap.cli import apply_gate, output, plan, plan_file
from hotswap.cli.apply_wait import followed
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Unreachable, Url
from hotswap.cli.client import segment as part
from hotswap.cli.plan import DEFAULT_FILE, File, Prune, Retry
from hotswap.cli.rollout_find import PATH
from hotswap.core.blueprint import Blueprint
from hotswap.core.blueprint_difference import Action, by_model, difference
from hotswap.core.blueprint_gate import GateStep
from hotswap.errors import HotswapError

_LONG = ("register", "switch", "rollout", "retry")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(apply)


def apply(
    file: File = DEFAULT_FILE,
    wait: Annotated[
        bool,
        typer.Option("--wait", "-w", help="Follow the rollouts to their ends, and judge them."),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0.0, help="With --wait: fail after so many seconds.", metavar="SECONDS"
        ),
    ] = None,
    retry: Retry = False,
    prune: Prune = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Register, switch and roll out what the file names, as far as the server has it otherwise.

    Applied again it does nothing again: a rollout of the same version with the same settings
    runs once, however it ended. Where the file has a gate, the version passes it before its
    rollout begins. Models are independent: what is refused of one does not keep the others.

    Exits with 0 if all was done and, with `--wait`, every rollout of the file ended well; with 1
    if something was refused, a gate was not passed, or a rollout was rolled back or failed.

    Examples:

    `hotswap apply hotswap.yaml --wait --timeout 3600`
    """
    if timeout is not None and not wait:
        raise CommandFailed("--timeout is for --wait: without it nothing is waited for")
    blueprint = plan_file.read(file)
    with Client(url, token) as client:
        with output.spinner(f"comparing {file}", as_json):
            present = plan_file.look(client, blueprint)
        applying = Applying(client, blueprint, as_json)
        actions = difference(blueprint, present, retry=retry, prune=prune)
        try:
            for mine in by_model(actions).values():
                applying.model(mine)
            if wait:
                applying.follow(url, token, timeout)
        except HotswapError as problem:
            applying.interrupted(problem.message)
    applying.close()


class Applying:
    """What is being done, and what came of it."""

    def __init__(self, client: Client, blueprint: Blueprint, quiet: bool) -> None:
        self._client = client
        self._blueprint = blueprint
        self._quiet = quiet
        self._steps: list[dict[str, Any]] = []
        self._gates: list[dict[str, Any]] = []
        #: (model, id) of those that the file is about.
        self._rollouts: list[tuple[str, str]] = []
        self._ended: list[dict[str, Any]] = []
        self._problems: list[str] = []

    def model(self, actions: list[Action]) -> None:
        """All of one model, up to the first that fails; nothing of it if something is refused.

        Raises `CommandFailed` where the others would fail too.
        """
        name = actions[0].model
        self._say((name, "bold"))
        refused = [action for action in actions if action.kind == "refused"]
        for action in actions:
            if action.kind == "refused" or (refused and action.changes):
                self._skipped(action)
            else:
                try:
                    self._do(action)
                except Unreachable:
                    raise
                except CommandFailed as problem:
                    if problem.status in (None, 401):
                        raise
                    self._failed(action, f"{problem.message}; applying again goes on from here")
                    return

    def follow(self, url: str, token: str | None, timeout: float | None) -> None:
        """Until every rollout that the file is about is over, or the time is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for model, id in self._rollouts:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended = followed(url, token, id, left, self._quiet)
            self._ended.append(ended)
            if not ended["good"]:
                self._problems.append(f"{model}: {ended['sentence']}")

    def interrupted(self, why: str) -> None:
        """Nothing more can be done now: say what was done until then."""
        done = [f"{each['model']}: {each['sentence']}" for each in self._steps if each["changed"]]
        said = f"done until then: {', '.join(done)}" if done else "nothing was done until then"
        self._problems.append(f"{why}; {said}; applying again goes on from there")

    def close(self) -> None:
        """The end of it. Raises `typer.Exit` or `CommandFailed` if something went wrong."""
        if self._quiet:
            output.emit(
                {
                    "ok": not self._problems,
                    "steps": self._steps,
                    "gates": self._gates,
                    "rollouts": self._ended,
                    "problems": self._problems,
                }
            )
            if self._problems:
                raise typer.Exit(1)
        if self._problems:
            raise CommandFailed("; ".join(self._problems))
        if not any(each["changed"] for each in self._steps):
            self._say("nothing had to be done")

    def _do(self, action: Action) -> None:
        if action.kind in ("rollout", "retry") and not self._passes(action):
            return
        if action.kind in _LONG and not output.on_terminal():
            self._say(("  … ", "dim"), f"{action.what}  {action.sentence}")
        with output.spinner(f"{action.model}: {action.sentence}", self._quiet):
            done = self._carried_out(action)
        mark, style = ("✓", "green") if action.changes else plan.MARKS[action.kind]
        self._say((f"  {mark} ", style), f"{action.what}  {done}")
        self._note(action, done)

    def _carried_out(self, action: Action) -> str:
        """What came of it, in words."""
        client, base = self._client, f"/api/v1/models/{part(action.model)}"
        match action.kind:
            case "register":
                answer = client.post(f"{base}/versions", action.body)
                return f"registered {answer['version']}, {answer['digest'][:19]}"
            case "switch":
                answer = client.post(f"{base}/switch", {"version": action.version})
                return f"{answer['from'] or 'nothing'} → {answer['to']}"
            case "rollout":
                answer = client.post(PATH, action.body)
                self._rollouts.append((action.model, answer["id"]))
                return f"started rollout {answer['id']} of {action.version}"
            case "retry":
                answer = client.post(f"{PATH}/{part(action.rollout)}/retry", {"why": "applied"})
                self._rollouts.append((action.model, answer["id"]))
                return f"began rollout {answer['id']} of {action.version} again"
            case "remove":
                client.delete(f"{base}/versions/{part(action.version)}")
                return f"removed {action.version}"
        if action.rollout:
            self._rollouts.append((action.model, action.rollout))
        return action.sentence

    def _passes(self, action: Action) -> bool:
        """Run the model's gate, if it has one; whether it lets the version through."""
        gate = self._blueprint.models[action.model].gate
        if gate is None:
            return True
        if not output.on_terminal():
            self._say(("  … ", "dim"), f"gate  loading and measuring {action.version}")
        told: list[GateStep] = []
        asking = apply_gate.steps(self._client, action.model, action.version, gate)
        while True:
            with output.spinner(f"{action.model}/{action.version} at the gate", self._quiet):
                step = next(asking, None)
            if step is None:
                break
            told.append(step)
            mark = ("  ✓ ", "green") if step.passed else ("  ✗ ", "bold red")
            self._say(mark, f"gate, {step.name}  {step.sentence}")
        steps = [{"name": s.name, "passed": s.passed, "sentence": s.sentence} for s in told]
        self._gates.append({"model": action.model, "version": action.version, "steps": steps})
        failed = next((step for step in told if not step.passed), None)
        if failed is None:
            return True
        said = f"the gate does not let {action.version} through: {failed.name}: {failed.sentence}"
        self._problems.append(f"{action.model}: {said}")
        self._note(action, said, ok=False)
        return False

    def _skipped(self, action: Action) -> None:
        if action.kind == "refused":
            self._failed(action, action.sentence)
            return
        said = f"not done, as something else of {action.model} is refused: {action.sentence}"
        self._say(("  – ", "dim"), f"{action.what}  {said}")
        self._note(action, said, ok=False)

    def _failed(self, action: Action, why: str) -> None:
        self._say(("  ✗ ", "bold red"), f"{action.what}  {why}")
        self._problems.append(f"{action.model}: {why}")
        self._note(action, why, ok=False)

    def _note(self, action: Action, sentence: str, *, ok: bool = True) -> None:
        changed = ok and action.changes
        told = plan.fields(action) | {"sentence": sentence, "ok": ok, "changed": changed}
        del told["changes"]
        self._steps.append(told)

    def _say(self, *cells: output.Cell) -> None:
        if not self._quiet:
            output.say(*cells)
