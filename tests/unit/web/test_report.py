"""A rollout's account."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import msgspec
import pytest

from hotswap.core.rollout_views import ArmView, JournalView
from hotswap.web import report, report_data
from hotswap.web.plots import WIDTH
from tests.unit.web.samples import BEGAN, HOSTILE, STEPS, WHY, journal, metric, rollout, running


class Page(HTMLParser):
    """The tags and the text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def _page() -> Page:
    return Page(report.write(rollout(), journal(), "html").text)


def test_the_account_tells_everything() -> None:
    """Verdict, why, who saw what, metrics, phases, each decision, and how to verify it."""
    page = _page()
    for text in (
        "fraud: v1 → v2",
        "fraud/v2 was rolled back; v1 answers every request.",
        WHY,
        "v1 answered 17 requests in the place of v2.",
        "1.92 to 33.4 ×",
        "at least 0.845 ×",
        "48 entries in the journal",
        "commanded: pause by ann",
        "“lunch”",
        "hotswap rollout verify r-12",
    ):
        assert text in page.text
    titles = [tag for tag, _ in page.tags if tag == "svg"]
    assert len(titles) == 7


def test_the_html_needs_nothing_else() -> None:
    """No script, no address, no file: it can be sent by mail and read offline."""
    text = report.write(rollout(), journal(), "html").text
    page = Page(text)
    assert "script" not in [tag for tag, _ in page.tags]
    loading = {"src", "href", "srcset", "action", "data", "xlink:href"}
    assert not [1 for _, attributes in page.tags if loading & set(attributes)]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def _hostile() -> list[JournalView]:
    return [
        msgspec.structs.replace(
            entry, message=HOSTILE, who=HOSTILE, why=HOSTILE, command=HOSTILE, reason=HOSTILE
        )
        for entry in journal()
    ]


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_hostile_names_are_shown_as_they_stand(form: str) -> None:
    """No tag, no link and no control character of theirs comes through."""
    bad = msgspec.structs.replace(
        rollout(),
        model=HOSTILE,
        version=HOSTILE,
        stable=HOSTILE,
        message=HOSTILE,
        phase=HOSTILE,
        reason=HOSTILE,
        strategy=HOSTILE,
        warnings=(HOSTILE,),
        weights={HOSTILE: 100.0},
        steps=tuple(msgspec.structs.replace(s, label=HOSTILE, state=HOSTILE) for s in STEPS),
        metrics=(metric(HOSTILE, sentence=HOSTILE, verdict=HOSTILE, role=HOSTILE),),
        spec={HOSTILE: HOSTILE + "\n```\n# injected"},
    )
    account = report.write(bad, _hostile(), form, "x")
    assert "\x1b" not in account.text
    assert "\u202e" not in account.text
    if form == "html":
        page = Page(account.text)
        assert "script" not in [tag for tag, _ in page.tags]
        assert "<script>alert(1)</script>" in page.text
    else:
        outside = re.sub(r"^(`{3,})json\n.*?^\1$", "", account.text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"(?<!\\)<script", outside)
        assert not re.search(r"(?<!\\)\]\(b\)", outside)
        assert "\n# injected" not in outside
    for svg in account.files.values():
        ElementTree.fromstring(svg)


def test_each_row_of_a_markdown_table_has_as_many_cells_as_its_head() -> None:
    """Whatever the cells hold."""
    text = report.write(rollout(message=HOSTILE), _hostile(), "markdown", "x").text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.parametrize(
    "record",
    [
        {},
        {"metrics": None, "before": 3, "after": []},
        {"metrics": [{"name": "x"}, 7], "before": {"evidence": {"stages": [{"number": "x"}]}}},
        {"after": {"exposure": None}, "before": {"evidence": {"stages": []}}},
        {"after": {"exposure": {"weight": "much"}}},
    ],
)
def test_records_without_evidence_are_enough(form: str, record: dict[str, object]) -> None:
    """An account of what there is is written."""
    entries = [msgspec.structs.replace(entry, record=record) for entry in journal()]
    text = report.write(rollout(metrics=()), entries, form).text
    assert "was rolled back" in text
    assert "No metric was looked at." in text


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_a_rollout_that_just_began_has_an_account(form: str) -> None:
    """Without journal, steps, stable version or metrics."""
    view = running(steps=(), stable=None, counts={}, history=())
    text = report.write(msgspec.structs.replace(view, metrics=()), [], form).text
    for sentence in ("Nothing happened yet.", "The journal is empty.", "Running for"):
        assert sentence in text


def test_neighbours_that_say_the_same_are_one_line() -> None:
    """None is left out: the numbers go on without a gap."""
    lines = report_data.sayings(rollout(), journal())
    assert [line.first for line in lines[1:]] == [line.last + 1 for line in lines[:-1]]
    assert sum(line.count for line in lines) == 48
    assert len(lines) < 12


def test_phases_follow_one_another_without_a_gap() -> None:
    """Each lasts until the next begins; the last one, if it is over, has no end."""
    periods = report_data.periods(rollout(), journal())
    names = ["Preparing", "Progressing", "Paused", "RollingBack", "RolledBack"]
    assert [period.phase for period in periods] == names
    for one, other in pairwise(periods):
        assert one.seconds is not None
        assert one.begin + one.seconds == pytest.approx(other.begin)
    assert periods[-1].seconds is None


def test_weights_are_what_the_records_say_and_zero_after_a_rollback() -> None:
    """Percent of the requests, whatever the step is called."""
    points = report_data.weights(rollout(), journal())
    shares = [weight for _, weight in points]
    assert shares[0] == 0.0
    assert shares[1] == 5.0
    assert 25.0 in shares
    assert shares[-1] == 0.0
    assert report_data.weight_sentence(points).endswith("to 0 %.")


def test_without_records_weights_are_those_of_the_steps() -> None:
    """And everything once it is promoted."""
    entries = [
        JournalView(1, BEGAN, "started", "Preparing", "", "", 1, 0),
        JournalView(2, BEGAN + 1, "decided", "Progressing", "", "", 2, 2),
        JournalView(3, BEGAN + 2, "decided", "Healthy", "", "", 3, 6),
    ]
    view = rollout(phase="Healthy", weights={"v2": 100.0})
    assert [weight for _, weight in report_data.weights(view, entries)] == [0.0, 25.0, 100.0, 100.0]


def test_the_histogram_is_of_equally_loaded_hosts_or_there_is_none() -> None:
    """Shares add up to a hundred; without a twin below one half nothing is compared."""
    entries = journal()
    bars = report_data.histogram(entries)
    assert sum(stable for _, stable, _ in bars) == pytest.approx(100)
    assert sum(candidate for _, _, candidate in bars) == pytest.approx(100)
    assert len(bars) <= 40
    record = msgspec.json.decode(msgspec.json.encode(entries[46].record))
    record["before"]["evidence"]["stages"][0]["twin_weight"] = 0
    assert report_data.histogram([msgspec.structs.replace(entries[46], record=record)]) == []


def test_a_metric_that_is_only_in_the_journal_is_still_told() -> None:
    """What the rollout no longer shows was evidence once."""
    names = [trace.name for trace in report_data.traces(rollout(metrics=()), journal())]
    assert "error_rate" in names


def test_a_long_journal_gives_a_small_report() -> None:
    """Ten thousand decisions are thinned in plots; a table of equal ones is one line."""
    value = msgspec.to_builtins([metric(arms={"stable": ArmView("v1", 1, 0, 0.0)})])
    entries = [
        JournalView(
            i, BEGAN + i, "decided", "Progressing", "", "same", 1, 1, record={"metrics": value}
        )
        for i in range(1, 10_001)
    ]
    account = report.write(running(), entries, "html").text
    assert len(account) < 150_000
    assert "10000" in account
    assert str(WIDTH) in account


def test_metrics_of_a_rollout_that_is_over_are_those_it_was_decided_by() -> None:
    """The account shows them although the rollout itself no longer does."""
    page = Page(report.write(rollout(metrics=()), journal(), "html").text)
    assert "1.92 to 33.4 ×" in page.text
    assert "Latency, by quantile" in page.text
