"""What clients may see of a model's exception: type and message, never where things lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.app.host import Describe
from hotswap.errors import LoadError

DESCRIBE = Describe(
    {
        "/srv/state/artifacts/abc": "fraud/v1",
        "/srv/state": "state",
        "/opt/venv": "python",
        "/home/ann": "~",
        "/": "root",
        "": "nothing",
    }
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no /srv/state/artifacts/abc/model.onnx", "no fraud/v1/model.onnx"),
        ("/srv/state/x and /srv/state/y", "state/x and state/y"),
        ("in /opt/venv/lib/python3.11/site-packages/a.py", "in python/lib/python3.11/site-packages/a.py"),
        ("open('/etc/secret/key.pem')", "open('key.pem')"),
        ("/home/ann/notes", "~/notes"),
        ("a/b and 1/2 stay", "a/b and 1/2 stay"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("a sentence without paths", "a sentence without paths"),
    ],
)  # fmt: skip
def test_paths_are_rewritten(text: str, shown: str) -> None:
    """Known roots by their names, other absolute paths to their last part, the rest as it is."""
    assert DESCRIBE.text(text) == shown


def test_the_type_is_named_but_for_our_own() -> None:
    """A model's exception shows its type; ours is a sentence already."""
    assert DESCRIBE(KeyError("x")) == "KeyError: 'x'"
    assert DESCRIBE(ValueError()) == "ValueError"
    assert DESCRIBE(LoadError("it is torn")) == "it is torn"


def test_long_messages_are_cut() -> None:
    """An exception that carries its data does not send it all to the client."""
    shown = DESCRIBE(ValueError("x" * 1_000_000))
    assert len(shown) < 3_000
    assert shown.endswith("…")


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_shown_is_its_type() -> None:
    """Its own failure is not ours."""
    assert DESCRIBE(Mute()) == "Mute"


@given(st.text())
def test_no_text_breaks_it_and_no_root_is_shown(text: str) -> None:
    """Whatever surrounds a root, the root is not in what clients see."""
    shown = DESCRIBE.text(f"{text}/srv/state/artifacts/abc/{text}")
    assert "/srv/state" not in shown or "/srv/state" in text


def test_without_roots_there_is_nothing_to_rewrite() -> None:
    """An empty pattern matches nothing."""
    assert Describe({}).text("plain") == "plain"
