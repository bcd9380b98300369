"""Errors to HTTP, and what is hidden in them."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from hotswap import errors
from hotswap.server.errors import Origin, describe, error_body, scrub, status_of, translate

OURS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.HotswapError)
]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_a_status_and_a_sentence(kind: type[errors.HotswapError]) -> None:
    """Each of our errors becomes an HTTP error with a JSON sentence."""
    status, headers, body = translate(kind())
    assert 400 <= status < 600
    assert status != 422
    assert msgspec.json.decode(body)["error"]
    assert (b"retry-after" in dict(headers)) == issubclass(kind, errors.Retryable)


def test_status_of_others() -> None:
    """What is not ours is a 500; a subclass has its parent's status."""
    assert status_of(ValueError()) == 500
    assert status_of(errors.UntrustedCode()) == 403
    assert status_of(errors.SignatureMismatch()) == 409


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open /srv/state/x.json failed", "open …/x.json failed"),
        ("open '/srv/state/my model/x.json'", "open '…/x.json'"),
        ("see file:///srv/a/b", "see …/b"),
        ("at C:\\Users\\me\\m.pkl now", "at … now"),
        ("a/b and 1/2 and n/a", "a/b and 1/2 and n/a"),
        ("get https://example.org/a/b", "get https://example.org/a/b"),
        ("x\nTraceback (most recent call last):\n  File ...", "x\n(traceback in the log)"),
    ],
)
def test_scrub(text: str, expected: str) -> None:
    """Paths keep their last part, tracebacks go, and the rest stays as it is."""
    assert scrub(text) == expected


def test_scrub_shows_an_artifacts_own_paths() -> None:
    """Known roots, digests, and model/version folders become the version's name."""
    origin = Origin("fraud", "v2", "sha256:ab12cd")
    for text in (
        "/srv/state/artifacts/ab12cd/vocab.txt",
        "/srv/state/artifacts/sha256-ab12cd/vocab.txt",
        "/models/fraud/v2/vocab.txt",
    ):
        assert scrub(f"no {text}.", origin=origin) == "no fraud/v2/vocab.txt."
    assert scrub("no /srv/x/v.txt", roots={"/srv/x/": "fraud/v2"}) == "no fraud/v2/v.txt"


def test_scrub_hides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the environment is shown as its variable's name."""
    monkeypatch.setenv("DATABASE_PASSWORD", "correct-horse")
    assert scrub("login with correct-horse") == "login with <DATABASE_PASSWORD>"


def test_describe_and_length() -> None:
    """A model's exception is its type and message, cut to a readable length."""
    assert describe(ValueError("bad /a/b/c")) == "ValueError: bad …/c"
    assert describe(KeyError()) == "KeyError"
    assert len(scrub("x" * 10_000)) <= 2000


def test_any_text_is_a_body() -> None:
    """Text that UTF-8 cannot hold is still answered."""
    assert msgspec.json.decode(error_body("a\ud800b"))["error"] == "a?b"
