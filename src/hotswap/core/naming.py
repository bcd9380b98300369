"""Names of models and versions: which are allowed, their order, and what comes next. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hotswap.errors import BadInput

LONGEST: Final = 128
#: How folders begin that a version is fetched or copied into before it has its name.
STAGING: Final = ".staging-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PARTS: Final = re.compile(r"[0-9]+|[^0-9]+")
_SEMVER_PRE: Final = re.compile(r"[vV]?[0-9]+\.[0-9]+\.[0-9]+(-)(?=.)", re.DOTALL)
_WORD_PRE: Final = re.compile(
    r"[0-9]([-._])(?:alpha|beta|rc|pre|preview|dev|snapshot|nightly)(?![A-Za-z])", re.IGNORECASE
)
_OURS: Final = re.compile(r"v(0|[1-9][0-9]{0,17})")

_NUMBER, _PRE, _END, _TEXT = 2, 0, 1, 3

NaturalKey = tuple[tuple[tuple[int, int, str], ...], str]
"""What `natural_key` returns: compared as it is, stored nowhere."""


def check_name(kind: str, name: str) -> str:
    """The name itself, if it may be used. ``kind`` says what it names ("model", "version").

    Names are ASCII, at most 128 characters, start with a letter or a digit, and go on with
    letters, digits, ``.``, ``_`` and ``-``; ``..`` may not be in them. So no name can leave a
    folder, hide, break a line of a log, or be spelled in two ways.

    Raises `BadInput`.

    >>> check_name("version", "v1.2-rc1")
    'v1.2-rc1'
    >>> check_name("model", "../etc")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    hotswap.errors.BadInput: the model name '../etc' is not valid: use 1 to 128 of A-Z a-z 0-9 ...
    """
    if _NAME.fullmatch(name) and ".." not in name:
        return name
    shown = ascii(name)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    raise BadInput(
        f"the {kind} name {shown} is not valid: use 1 to {LONGEST} of A-Z a-z 0-9 . _ - "
        "starting with a letter or a digit, without '..'"
    )


def natural_key(version: str) -> NaturalKey:
    """A sort key: runs of digits count as numbers, and a pre-release comes before its release.

    After three dotted numbers any ``-`` starts a pre-release, as semantic versions have it;
    elsewhere only the usual words do (alpha, beta, rc, pre, preview, dev, snapshot, nightly).
    It is a total order over all strings: different strings have different keys.

    >>> sorted(["v10", "v9", "1.10.0", "1.9.0", "1.10.0-rc1"], key=natural_key)
    ['1.9.0', '1.10.0-rc1', '1.10.0', 'v9', 'v10']
    """
    pre = _SEMVER_PRE.match(version) or _WORD_PRE.search(version)
    if pre is None:
        tokens = [*_tokens(version)]
    else:
        tokens = [*_tokens(version[: pre.start(1)]), (_PRE, 0, ""), *_tokens(version[pre.end(1) :])]
    return (*tokens, (_END, 0, "")), version


def _tokens(text: str) -> Iterable[tuple[int, int, str]]:
    for part in _PARTS.findall(text):
        if part[0] in "0123456789":
            # Length and digits, not int(): Python refuses to read numbers of many digits.
            digits = part.lstrip("0")
            yield _NUMBER, len(digits), digits
        else:
            yield _TEXT, 0, part


def next_version(existing: Iterable[str]) -> str:
    """``vN``, one more than the highest there is. Give it every id that was ever used.

    >>> next_version(["v1", "v9", "v10", "2024-01-01"])
    'v11'
    >>> next_version([])
    'v1'
    """
    numbers = (int(match[1]) for name in existing if (match := _OURS.fullmatch(name)))
    return f"v{max(numbers, default=0) + 1}"
