"""Commands about a server itself: ``serve``, ``demo``, ``check`` and ``reload``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from typer.core import TyperCommand

from hotswap.cli import output
from hotswap.cli.client import DEFAULT_URL, AsJson, Client, CommandFailed, Token, Url


class CheckResult(Protocol):
    """What is told of one version that was checked: ``message`` says what it is or what is wrong."""

    @property
    def model(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def ok(self) -> bool: ...

    @property
    def message(self) -> str: ...

    @property
    def seconds(self) -> float: ...


class SettingsCommand(TyperCommand):
    """A command whose options are the settings, which are imported when it is used.

    So ``hotswap --help`` and the client's commands do not wait for the settings' libraries.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, made at the first use."""
        if not self.params:
            inner = typer.Typer(add_completion=False)
            from hotswap.cli.settings_options import command

            inner.command()(command(_serve))
            made: Any = typer.main.get_command(inner)
            json_option: Any = typer.main.get_command(_json_only())
            self.params = [*made.params, *json_option.params]
            self.callback = _with_json(made.callback)
        return super().get_params(ctx)


def _json_only() -> typer.Typer:
    holder = typer.Typer(add_completion=False)

    @holder.command()
    def _(
        as_json: Annotated[
            bool, typer.Option("--json", help="Write JSON log lines: --log-format json.")
        ] = False,
    ) -> None: ...

    return holder


def _with_json(callback: Any) -> Any:
    def run(as_json: bool = False, **values: Any) -> Any:
        if as_json:
            values["log_format"] = "json"
        return callback(**values)

    return run


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command(cls=SettingsCommand)(serve)
    app.command()(demo)
    app.command()(check)
    app.command()(reload)


def serve() -> None:
    """Serve models and switch between their versions.

    Settings come from flags, then from the environment, then from the file that --config names:
    --state-dir is HOTSWAP_STATE_DIR there, and state_dir in the file.
    """


def _serve(flags: dict[str, Any]) -> None:
    if sys.platform == "win32":
        raise CommandFailed(
            "'hotswap serve' needs Linux or macOS; on Windows only the embedded engine works: "
            "'from hotswap import Engine'"
        )
    from hotswap.config import Settings

    settings = Settings(**flags)
    from hotswap.app.supervisor import run

    raise typer.Exit(run(settings, lambda: Settings(**flags)))


def demo(
    exit_: Annotated[
        bool, typer.Option("--exit", help="End after the account, instead of staying up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train small models, serve them, switch and roll out new versions under live traffic.

    Exits with 1 if a request fails, a bad version is promoted, a good one is not, or a journal does
    not verify. With --json the account is written as JSON.
    """
    from rich.console import Console

    from hotswap.app.demo import main
    from hotswap.cli.rollout_screen import screen

    # With --json what goes on is for people still, and stdout for programs.
    console = Console(stderr=as_json)
    raise typer.Exit(main(exit=exit_, as_json=as_json, console=console, screen=screen))


def check(
    models: Annotated[Path, typer.Argument(help="Folder of models.", metavar="MODELS")],
    trust_code: Annotated[
        bool | None,
        typer.Option(
            "--trust-code", help="Load artifacts of formats that can run code when loaded."
        ),
    ] = None,
    allow_unvalidated: Annotated[
        bool | None,
        typer.Option("--allow-unvalidated", help="Accept versions that cannot be tried out."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with settings.", metavar="PATH")
    ] = None,
    log_level: Annotated[
        str, typer.Option("--log-level", help="Least severe log lines that are written.")
    ] = "warning",
    as_json: AsJson = False,
) -> None:
    """Load and validate every version in a folder of models, without serving.

    Exits 0 only if every version could be served.
    """
    from hotswap.app.check import check_models
    from hotswap.config import Settings

    settings = Settings(
        models=models,
        trust_code=trust_code,
        allow_unvalidated=allow_unvalidated,
        config=config,
        log_level=log_level,
    )
    results: list[CheckResult] = []

    def show(result: CheckResult) -> None:
        results.append(result)
        if not as_json:
            mark = ("✓ ", "green") if result.ok else ("✗ ", "bold red")
            took = f"  {result.seconds:.2f} s" if result.ok else ""
            output.say(mark, f"{result.model}/{result.version}", f"  {result.message}{took}")

    with output.spinner(f"checking {models}", as_json):
        good = check_models(models, settings, show)
    if as_json:
        output.emit({"ok": good, "versions": [_fields(result) for result in results]})
    elif not results:
        output.say("no versions were found")
    raise typer.Exit(0 if good else 1)


def _fields(result: CheckResult) -> dict[str, Any]:
    names = ("model", "version", "ok", "message", "seconds")
    return {name: getattr(result, name) for name in names}


def reload(
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            envvar="HOTSWAP_STATE_DIR",
            help="The server's state directory, for when its control API does not answer.",
            metavar="PATH",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Replace a server's workers, with its present code and settings; no request is dropped.

    It is a signal (SIGHUP), so it works on the server's own machine alone.
    """
    if sys.platform == "win32":
        raise CommandFailed("'hotswap reload' needs Linux or macOS, as 'hotswap serve' does")
    pid = _supervisor(url, token, state_dir)
    import os

    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        raise CommandFailed(
            f"there is no process {pid} on this machine: run this where the server runs"
        ) from None
    except PermissionError:
        raise CommandFailed(
            f"process {pid} belongs to another user: run this as the user who runs the server"
        ) from None
    if as_json:
        output.emit({"pid": pid, "signal": "SIGHUP"})
    else:
        output.say(f"process {pid} was told to reload; its log tells how that went")


def _supervisor(url: str, token: str | None, state_dir: Path | None) -> int:
    """The supervisor's process id, from the server, else from its lock."""
    with Client(url, token) as client:
        if not client.local and state_dir is None:
            raise CommandFailed(f"{client.url} is another machine: run this where the server runs")
        try:
            pid = client.get("/api/v1/info").get("supervisor_pid")
        except CommandFailed:
            if state_dir is None:
                raise
            pid = None
    if isinstance(pid, int):
        return pid
    lock = (state_dir or Path(".hotswap")) / "lock"
    try:
        return int(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise CommandFailed(f"no server is running on the state directory {lock.parent}") from None
