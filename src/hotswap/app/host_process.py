"""A host that was started by exec instead of forked from a nursery."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from hotswap.app import host, platform
from hotswap.app.nursery import preload
from hotswap.ipc.words import HEALTH_WORDS, Health, Words


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m hotswap.app.host_process``: started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="hotswap-host")
    for name in ("channel", "slot", "health"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--runtime-dir", required=True)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--lifeline", type=int)
    args = parser.parse_args(argv)
    platform.die_with_parent()
    if args.lifeline is not None:
        platform.die_with_lifeline(args.lifeline)
    preload([args.runtime])  # what it cannot import, loading will tell
    health = Health(Words(args.health, HEALTH_WORDS))
    return host.run(args.channel, args.slot, health, args.runtime_dir)


def _end() -> None:
    """Run, and go as a forked host goes: threads that a model left behind hold up nothing."""
    status = 1
    try:
        status = main()
    except BaseException:  # noqa: BLE001 - told, and the process ends
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _end()
