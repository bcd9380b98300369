"""The import contract holds, and importing hotswap is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("sklearn", "onnxruntime", "torch", "pandas", "sqlalchemy", "xgboost", "lightgbm", "skops")


def test_imports_point_downwards() -> None:
    """import-linter finds every contract of pyproject.toml kept."""
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_hotswap_imports_no_heavy_library() -> None:
    """`import hotswap` and the worker's modules load no model library and no database."""
    code = (
        "import sys, hotswap, hotswap.ports, hotswap.errors\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
