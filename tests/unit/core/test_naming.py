"""Names of models and versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.naming import check_name, natural_key, next_version
from hotswap.errors import BadInput


@pytest.mark.parametrize("name", ["a", "0", "v1", "Fraud_2.1-rc1", "a" * 128, "2024-01-02"])
def test_ordinary_names_are_returned_as_they_are(name: str) -> None:
    """A valid name passes unchanged."""
    assert check_name("model", name) == name


HOSTILE = [
    "",
    ".",
    "..",
    "../etc",
    "a/../b",
    "a..b",
    "a/b",
    "/etc/passwd",
    "\\..\\..\\file",
    "a\\b",
    "%2e%2e",
    "%252e%252e%252f",
    "a%00",
    "a\x00b",
    "a\nb",
    "v1\n",
    "a\x1b[31m",
    "C:",
    "-rf",
    ".hidden",
    "_x",
    "a b",
    "e\u0301",
    "\u00e9",
    "\uff0e\uff0e",
    "v\u0661",
    "\u202ev1",
    "a" * 129,
    'x;{}"$',
]


@pytest.mark.parametrize("kind", ["model", "version"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_in_one_printable_sentence(kind: str, name: str) -> None:
    """Nothing that could leave a folder, hide, or break a log line is a name."""
    with pytest.raises(BadInput) as caught:
        check_name(kind, name)
    assert kind in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300


@given(st.text())
def test_an_accepted_name_is_always_one_plain_path_component(name: str) -> None:
    """Whatever is accepted holds only the allowed characters."""
    try:
        check_name("model", name)
    except BadInput:
        return
    assert name.isascii()
    assert "/" not in name
    assert ".." not in name
    assert 1 <= len(name) <= 128
    assert name[0].isalnum()
    assert all(c.isalnum() or c in "._-" for c in name)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("v9", "v10"),
        ("1.9.0", "1.10.0"),
        ("1.0.0-rc1", "1.0.0"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-alpha.1", "1.0.0-alpha.beta"),
        ("1.0.0-alpha.beta", "1.0.0-beta"),
        ("1.0.0-beta.2", "1.0.0-beta.11"),
        ("1.0.0-rc.1", "1.0.0"),
        ("1.0.0-1", "1.0.0-alpha"),
        ("v2-rc1", "v2"),
        ("v1", "v2-rc1"),
        ("v2", "v2-hotfix"),
        ("2024-01-02", "2024-01-10"),
        ("2024-9-30", "2024-10-01"),
        ("1.0", "1.0.1"),
        ("9", "v1"),
        ("v" + "9" * 5000, "v1" + "0" * 5000),
    ],
)
def test_versions_are_in_natural_order(earlier: str, later: str) -> None:
    """Numbers count as numbers, and pre-releases come before their release."""
    assert natural_key(earlier) < natural_key(later)
    assert not natural_key(later) < natural_key(earlier)


@given(st.text(), st.text(), st.text())
def test_the_order_is_total_over_any_strings(a: str, b: str, c: str) -> None:
    """Any two strings compare, only equal strings tie, and the order is transitive."""
    ka, kb, kc = natural_key(a), natural_key(b), natural_key(c)
    assert (ka < kb) + (kb < ka) + (a == b) == 1
    if ka < kb and kb < kc:
        assert ka < kc


version_like = st.from_regex(
    r"[v]?[0-9]{1,3}(\.[0-9]{1,2}){0,3}(-(rc|alpha)\.?[0-9]?)?", fullmatch=True
)


@given(st.lists(version_like, max_size=8), st.randoms())
def test_sorting_does_not_depend_on_the_first_order(versions: list[str], random: object) -> None:
    """Shuffled lists of versions sort alike."""
    shuffled = list(versions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(versions, key=natural_key) == sorted(shuffled, key=natural_key)


def test_the_next_version_is_one_more_than_the_highest() -> None:
    """Gaps are not filled and other names do not count, so that an id is never used again."""
    assert next_version([]) == "v1"
    assert next_version(["v1", "v3", "v10", "V99", "v2-rc1", "2024", "v007"]) == "v11"


@given(st.lists(st.one_of(version_like, st.integers(0, 10**9).map(lambda n: f"v{n}"))))
def test_the_next_version_is_new_and_valid(existing: list[str]) -> None:
    """It never names one that exists."""
    new = next_version(existing)
    assert new not in existing
    assert check_name("version", new) == new
