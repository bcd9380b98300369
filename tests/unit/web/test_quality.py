"""A model's report, as a page and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from hotswap.core.quality_views import Agreement, Coverage, Quality, Segment
from hotswap.web import quality, quality_plots
from hotswap.web import quality_words as words
from tests.unit.web import quality_samples as samples
from tests.unit.web.samples import HOSTILE

EVERY = [
    samples.binary,
    samples.multiclass,
    samples.regression,
    samples.unlabelled,
    samples.alone,
    samples.empty,
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """The tags and the text of a document, whose every tag is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_the_page_tells_everything() -> None:
    """Sentences, metrics, bounds, agreement, rows, segments, latency, labels, notes, skipped files."""
    page = Page(quality.write(samples.binary(), "html"))
    for text in (
        "fraud: v1 → v2",
        "v2 against v1, on 1,200 labelled rows of requests that both were asked.",
        "1,200 of 5,000 recorded rows have their label (24 %); 1,150 of the 2,500 that are due (46 %).",
        "4 labelled rows cannot be told apart",
        "17 labels came for requests that are not recorded.",
        "A difference in accuracy between v2 and v1 is shown",
        "Only the newest 1,000,000",
        "is damaged after record 12",
        "+0.9 to +3.3 pt",
        "3,990 of 4,200 rows got the same answer from both (95 %).",
        "request-0",
        "amount 120.5",
        "By country",
        "−50 to −10 pt",
        "12.5 ms",
        "v2 candidate",
    ):
        assert text in page.text, text
    # differences, their four paths, calibration, ROC, segments, latency, labels
    assert page.count("svg") == 10


@pytest.mark.parametrize("sample", EVERY)
def test_the_page_needs_nothing_else(sample: Callable[[], Quality]) -> None:
    """No script, no address, no file: it can be sent by mail and read offline."""
    text = quality.write(sample(), "html")
    page = Page(text)
    assert not page.count("script")
    loading = {"src", "href", "srcset", "action", "data", "xlink:href"}
    assert not [1 for _, attributes in page.tags if loading & set(attributes)]
    for forbidden in ("http://", "https://", "url(", "@import"):
        assert forbidden not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize("sample", EVERY)
def test_plots_are_well_formed(sample: Callable[[], Quality]) -> None:
    """Each is XML, and says in words what it shows."""
    for svg in re.findall(r"<svg.*?</svg>", quality.write(sample(), "html"), re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.findtext("title")
        assert root.findtext("desc")
        assert "nan" not in svg
        assert "inf" not in re.sub(r"[a-z]*inf[a-z]+", "", svg)


@pytest.mark.parametrize("sample", EVERY)
def test_each_row_of_a_markdown_table_has_as_many_cells_as_its_head(
    sample: Callable[[], Quality],
) -> None:
    """And the second line is the one of dashes."""
    text = quality.write(sample(), "markdown")
    assert text.startswith("# fraud")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, table
        assert re.fullmatch(r"[|:-]+", rows[1])


def _hostile() -> Quality:
    sample = samples.binary(
        model=HOSTILE, stable=HOSTILE, candidate=HOSTILE + "2", task=HOSTILE,
        notes=(HOSTILE,), skipped=(HOSTILE,), segments_by=HOSTILE, main=HOSTILE,
        segments=(Segment(HOSTILE, 7, 0.1, 0.2, -0.1, 0.3),),
        agreement=Agreement(9, 5, (HOSTILE, "b"), ((5, 4), (0, 0))),
        apart=samples.rows_apart(
            request_id=HOSTILE, stable=HOSTILE, candidate=[HOSTILE, {HOSTILE: 1}], label=HOSTILE,
            inputs={HOSTILE: HOSTILE},
        ),
        coverage=Coverage(9, 5, 0, 0, {HOSTILE: (9, 5)}, ((samples.BEGAN, 9, 5),)),
    )  # fmt: skip
    sides = tuple(
        msgspec.structs.replace(side, version=HOSTILE, metrics={**side.metrics, HOSTILE: 1.0})
        for side in sample.sides
    )
    differences = tuple(
        msgspec.structs.replace(each, metric=HOSTILE, sentence=HOSTILE)
        for each in sample.differences
    )
    return msgspec.structs.replace(sample, sides=sides, differences=differences)


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_what_clients_sent_is_shown_as_it_stands(form: str) -> None:
    """No tag, no link and no control character of theirs comes through."""
    text = quality.write(_hostile(), form)
    assert "\x1b" not in text
    assert "\u202e" not in text
    if form == "html":
        page = Page(text)
        assert not page.count("script")
        assert "<script>alert(1)</script>" in page.text
    else:
        assert not re.search(r"(?<!\\)<script", text)
        assert not re.search(r"(?<!\\)\]\(b\)", text)
        assert not re.search(r"(?<!\\)`x", text)


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_very_long_texts_are_cut(form: str) -> None:
    """Of an input, a label, an answer or an id the beginning is shown."""
    long = "long " * 100_000
    many = {f"column {at}": long for at in range(40)}
    sample = samples.binary(
        apart=samples.rows_apart(
            request_id=long, stable=long, candidate=[long], label=long, inputs=many
        )
    )
    text = quality.write(sample, form)
    assert len(text) < 120_000
    assert "28 more" in text


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_without_labels_it_says_how_to_send_them(form: str) -> None:
    """And compares answers alone."""
    text = quality.write(samples.unlabelled(), form)
    shown = Page(text).text if form == "html" else text.replace("\\", "")
    assert "v2 against v1, on requests that both were asked." in shown
    assert "No label is in for 5,000 recorded rows" in shown
    assert "hotswap feedback FILE" in shown
    assert "No metric can be told without labels." in shown
    assert "got the same answer from both" in shown
    assert "Differences" not in shown


def test_labels_on_rows_that_only_one_answered_show_no_difference() -> None:
    """It is said that there are too few."""
    found = words.headline(samples.binary(differences=()))
    assert "Too few of them are on rows that both answered to tell a difference." in found


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_one_version_alone_has_a_report(form: str) -> None:
    """Its metrics and parts, and no comparison."""
    text = quality.write(samples.alone(), form)
    assert "v1 alone, on 1,200 labelled rows." in text
    assert "fraud: quality" in text
    assert "Differences" not in text
    assert "86.00 %" in text


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_nothing_at_all_has_a_report(form: str) -> None:
    """It says that nothing is there."""
    text = quality.write(samples.empty(), form)
    for sentence in ("No version has answered anything.", "No row is recorded.", "No answer was"):
        assert sentence in text


def test_numbers_are_told_by_residuals_and_distances() -> None:
    """Less is better: a mean absolute error that rose points to the left."""
    page = Page(quality.write(samples.regression(), "html"))
    assert "Residuals: prediction minus label" in page.text
    assert "p50 0.4, p95 1.2, p99 3, max 12,346." in page.text
    assert "worse" in page.text
    low, estimate, high = words.oriented(samples.regression().differences[0])
    assert (low, estimate, high) == pytest.approx((-0.5, -0.4, -0.3))


def test_the_heat_of_the_matrix() -> None:
    """Agreement is coloured by all rows, disagreement by the most frequent one."""
    rows = quality.heat(samples.binary())
    assert rows == [[(3300, 1.0, True), (120, 1.0, False)], [(90, 0.75, False), (690, 0.209, True)]]
    assert quality.heat(samples.alone()) == []
    assert quality.heat(samples.binary(agreement=Agreement(5, 5, ("a",), ((5,),)))) == [
        [(5, 1.0, True)]
    ]


def test_all_but_one_row_is_not_a_hundred_percent() -> None:
    """The share that agrees is rounded down."""
    assert "(99.99 %)" in words.agreed(samples.binary(agreement=Agreement(1_000_000, 999_999)))
    assert "(100 %)" in words.agreed(samples.binary(agreement=Agreement(7, 7)))


@pytest.mark.parametrize(
    "changes",
    [
        {"low": float("-inf"), "high": float("inf")},
        {"estimate": float("nan"), "low": float("nan"), "high": float("nan")},
        {"low": 0.0, "estimate": 0.0, "high": 0.0, "path": ()},
    ],
)
def test_bounds_that_are_no_numbers_break_nothing(changes: dict[str, Any]) -> None:
    """Nor does a difference of exactly nothing."""
    sample = samples.binary()
    first = msgspec.structs.replace(sample.differences[0], **changes)
    bad = msgspec.structs.replace(sample, differences=(first, *sample.differences[1:]))
    for form in quality.FORMATS:
        assert quality.write(bad, form)


@pytest.mark.parametrize("at", [1e300, -1e300, float("inf")])
def test_times_that_are_none_break_nothing(at: float) -> None:
    """They are left out."""
    bad = samples.binary(
        first=at, last=at, apart=samples.rows_apart(time=at),
        coverage=Coverage(9, 5, 0, 0, {}, ((at, 9, 5),)),
    )  # fmt: skip
    for form in quality.FORMATS:
        assert quality.write(bad, form)


def test_ten_versions_each_have_a_line() -> None:
    """On their own they are shown beside one another."""
    sides = tuple(samples.side(f"v{at}", at / 10) for at in range(10))
    sample = samples.binary(
        paired=False, candidate="", stable="v1", sides=sides, differences=(), agreement=None,
        apart=(), segments=(),
    )  # fmt: skip
    text = Page(quality.write(sample, "html")).text
    assert "10 versions, each on the requests that it answered itself." in text
    assert "v9" in text


def test_a_segment_that_is_worse_is_told_from_one_that_is_better() -> None:
    """By the way its metric goes."""
    parts = samples.binary().segments
    assert [words.better(each, "accuracy") for each in parts] == [True, None, False]
    assert [words.better(each, "mae") for each in parts] == [False, None, True]
    drawn = quality_plots.draw(samples.binary())
    assert drawn.segments is not None
    assert "DE: +1 to +7 pt" in drawn.segments.text
