"""What is said of an artifact that can run code when it is loaded."""

from __future__ import annotations

SAFE = "skops, ONNX, XGBoost json/ubj, LightGBM txt"
"""The formats whose loading runs nothing that the file carries."""


def sentence(what: str) -> str:
    """Why ``what`` needs the operator's trust, how to give it, and how to do without.

    >>> sentence("A pickle").split(":")[0]
    'A pickle can run code that it carries when it is loaded'
    """
    return (
        f"{what} can run code that it carries when it is loaded: start the server with "
        f"--trust-code (or HOTSWAP_TRUST_CODE=1) if you trust where it comes from, or use a safe "
        f"format ({SAFE}), which 'hotswap models convert' can write."
    )
