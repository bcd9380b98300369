"""The root of the command line: its groups, its version, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hotswap.cli import (
    apply,
    feedback,
    models,
    output,
    plan,
    predict,
    replay,
    report,
    rollout,
    serve,
    traffic,
)
from hotswap.errors import HotswapError

# Typer re-exports this class's children alone.
_UsageProblem: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


class Root(TyperGroup):
    """Turns every expected failure into one line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """0 on success, 1 on failure, 2 on wrong usage, 130 when interrupted."""
        try:
            code = super().main(
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except HotswapError as problem:
            output.error(problem.message)
            code = 1
        except _UsageProblem as problem:
            _usage(problem)
            code = getattr(problem, "exit_code", 2)
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


def _usage(problem: Any) -> None:
    message = problem.format_message()
    context = getattr(problem, "ctx", None)
    if not message:  # a group without a command: its help was printed
        return
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    output.error(message.rstrip(".") + hint)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"hotswap {version('hotswap')}")
        except PackageNotFoundError:
            print("hotswap (from a checkout that is not installed)")
        raise typer.Exit


app = typer.Typer(
    cls=Root,
    name="hotswap",
    help="Serve machine-learning models, and switch live traffic between their versions without "
    "dropping a request.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


serve.register(app)
traffic.register(app)
predict.register(app)
plan.register(app)
apply.register(app)
feedback.register(app)
report.register(app)
replay.register(app)
app.add_typer(models.app, name="models")
app.add_typer(rollout.app, name="rollout")
