"""Write the reference pages that are read off the code: settings, and the command line.

``python docs/generate.py`` writes them; ``--check`` only says which are out of date. A test
runs the check, so the pages cannot drift.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code: do not edit. -->\n"


def _text(raw: str | None) -> str:
    """One line, with what Markdown would take for HTML escaped."""
    return " ".join((raw or "").split()).replace("<", "&lt;")


def _default(field: Any) -> str:
    if field.default_factory is not None or "Default:" in (field.description or ""):
        return ""  # the description says it
    value = field.default
    if value is None or value == ():
        return " Default: none."
    if isinstance(value, bool):
        value = str(value).lower()
    return f" Default: `{value:g}`." if isinstance(value, float) else f" Default: `{value}`."


def settings_page() -> str:
    """Every field of `hotswap.config.Settings`, under its three names."""
    from hotswap.config import Settings

    lines = [
        "# Settings",
        "",
        NOTE,
        "Each setting is a flag of `hotswap serve`, an environment variable, and a key of the YAML",
        "file that `--config` names. A flag wins over the variable, and the variable over the file.",
        "Lists are separated by commas in variables. In YAML, the limits may also stand in a section",
        "`limits`, without their prefix. Anything that is not a setting is refused.",
        "",
        "```yaml",
        "# server.yaml",
        "models: /srv/models",
        "port: 9000",
        "workers: 4",
        "limits:",
        "  body_bytes: 16777216",
        "```",
        "",
    ]
    for name, field in Settings.model_fields.items():
        flag = "MODELS" if name == "models" else "--" + name.replace("_", "-")
        lines += [
            f"## {name}",
            "",
            f"`{flag}`, `HOTSWAP_{name.upper()}`.{_default(field)}",
            "",
            _text(field.description),
            "",
        ]
    return "\n".join(lines)


def _command_lines(command: Any, path: str, depth: int) -> list[str]:
    lines = [f"{'#' * min(depth, 4)} {path}", "", *_paragraphs(command.help), ""]
    subcommands = getattr(command, "commands", None)
    if subcommands:
        for name in sorted(subcommands):
            if not subcommands[name].hidden:
                lines += _command_lines(subcommands[name], f"{path} {name}", depth + 1)
        return lines
    parameters = command.get_params(command.context_class(command, info_name=path))
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option" and not p.hidden]
    usage = [path, *(_argument(p) for p in arguments), "[OPTIONS]"]
    lines += ["```text", " ".join(usage), "```", ""]
    lines += [_row(f"`{_argument(p)}`", p) for p in arguments]
    lines += [
        _row(", ".join(f"`{flag}`" for flag in [*p.opts, *p.secondary_opts]), p)
        for p in options
        if p.name != "help"
    ]
    return [*lines, ""]


def _paragraphs(text: str | None) -> list[str]:
    return "\n\n".join(_text(part) for part in (text or "").split("\n\n")).splitlines()


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper().strip("[]")
    return name if parameter.required else f"[{name}]"


def _row(names: str, parameter: Any) -> str:
    text = _text(getattr(parameter, "help", None))
    return f"- {names}: {text}" if text else f"- {names}"


def cli_page() -> str:
    """Every command, argument and option of the command line."""
    import typer.main

    from hotswap.cli.root import app

    command = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        NOTE,
        "Every command exits with 0 only if it did what it was asked, with 1 if it failed and with 2",
        "if it was used wrongly. `--json` prints one JSON document instead of text. Commands that",
        "talk to a server use `--url`, else the variable `HOTSWAP_URL`, else",
        "`http://127.0.0.1:8081`: the address of the control API. They learn the address for",
        "predictions from it. `--help` explains each command, `hotswap --version` prints the version,",
        "and `hotswap --install-completion` completes commands, models and versions in your shell.",
        "",
    ]
    lines += _command_lines(command, "hotswap", 1)[2:]
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"settings.md": settings_page, "cli.md": cli_page}


def outdated() -> list[str]:
    """The names of the pages that do not say what the code says now."""
    return [
        name
        for name, page in PAGES.items()
        if not (path := REFERENCE / name).is_file() or path.read_text("utf-8") != page()
    ]


def main() -> int:
    """Write the pages, or with ``--check`` only compare them."""
    if "--check" in sys.argv[1:]:
        stale = outdated()
        for name in stale:
            print(f"docs/reference/{name} is out of date: run python docs/generate.py")
        return 1 if stale else 0
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
