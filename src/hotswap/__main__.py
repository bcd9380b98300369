"""``python -m hotswap`` and the ``hotswap`` command."""

from __future__ import annotations

from hotswap.cli.root import app


def main() -> None:
    """Run the command line."""
    app(prog_name="hotswap")


if __name__ == "__main__":
    main()
