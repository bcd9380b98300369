"""Figures and phases in words: the same on a terminal, in a report and on a page. Pure."""

from __future__ import annotations

import math
from typing import Final

from hotswap.core.durations import spoken
from hotswap.core.rollout_views import MetricView, PairView, RolloutView

NOTHING: Final = "–"

#: What each phase and verdict means to a reader: good, bad, attention, active or quiet.
TONES: Final = {
    "Preparing": "active",
    "Progressing": "active",
    "Paused": "attention",
    "Promoting": "active",
    "Baking": "active",
    "Healthy": "good",
    "Completed": "good",
    "RollingBack": "bad",
    "RolledBack": "bad",
    "Failed": "bad",
    "Degraded": "bad",
    "pass": "good",
    "fail": "bad",
    "insufficient": "attention",
    "error": "bad",
    "cancelled": "quiet",
}
PHASES: Final = (
    "Preparing",
    "Progressing",
    "Paused",
    "Promoting",
    "Baking",
    "Healthy",
    "Completed",
    "RollingBack",
    "RolledBack",
    "Failed",
    "Degraded",
)
SUCCEEDED: Final = ("Healthy", "Completed")
ENDED: Final = (*SUCCEEDED, "RolledBack", "Failed", "Degraded")
_SHARES: Final = ("error_rate", "invalid_rate", "disagreement", "sample_ratio")


def tone(word: str) -> str:
    """How a phase or a verdict is to be taken.

    >>> tone("Healthy"), tone("fail"), tone("unheard of")
    ('good', 'bad', 'quiet')
    """
    return TONES.get(word, "quiet")


def cause(phase: str, reason: str) -> str:
    """The reason, unless it only says the phase again.

    >>> cause("RolledBack", "guardrail"), cause("RollingBack", "rolling_back")
    ('guardrail', '')
    """
    said = reason.replace("_", "").lower()
    return "" if said in (phase.lower(), "running", "step") else reason


def clean(text: object) -> str:
    """``text`` without control and direction characters; it may come from anybody.

    >>> clean("a\\x1b[31m\\u202eb")
    'a�[31m�b'
    """
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def number(value: float | None) -> str:
    """Three significant digits, thousands in groups.

    >>> number(0.012345), number(12345.6), number(3.0), number(None), number(float("inf"))
    ('0.0123', '12,346', '3', '–', '∞')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A weight, which is a percentage already.

    >>> percent(5.0), percent(33.333)
    ('5 %', '33.3 %')
    """
    return f"{value:.3g} %"


def level(metric: str, value: float | None) -> str:
    """One arm's value in the metric's own unit.

    >>> level("error_rate", 0.0123), level("latency_p99", 12.5), level("auc", 0.912)
    ('1.23 %', '12.5 ms', '0.912')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if _is_share(metric):
        return f"{number(100 * value)} %"
    return f"{number(value)} ms" if metric.startswith("latency") else number(value)


def compared(metric: MetricView, value: float | None) -> str:
    """A value of the metric's comparison: a ratio, a difference or a level.

    >>> view = MetricView("error_rate", {}, 1.5, None, 10, 2.0, 1.0, "pass")
    >>> compared(view, 1.5), compared(view, None)
    ('1.5 ×', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if metric.comparison == "ratio":
        return f"{number(value)} ×"
    if metric.comparison != "difference":
        return level(metric.name, value)
    sign = "+" if value > 0 else "−" if value < 0 else ""
    size = abs(value)
    if _is_share(metric.name):
        return f"{sign}{number(100 * size)} pt"
    return sign + level(metric.name, size)


def interval(metric: MetricView) -> str:
    """The interval in the comparison's unit; `NOTHING` before there is one.

    An end that is None or infinite is open.

    >>> view = MetricView("latency_p99", {}, 1.1, (0.9, float("inf")), 10, 1.2, 1.0, "insufficient")
    >>> interval(view)
    'at least 0.9 ×'
    """
    ends = [end for end in metric.interval or () if end is not None and math.isfinite(end)]
    if not ends or metric.interval is None:
        return NOTHING
    if len(ends) == 1:
        if metric.comparison == "ratio" and ends[0] <= 0:  # which says nothing
            return NOTHING
        side = "at least" if metric.interval[0] == ends[0] else "at most"
        return f"{side} {compared(metric, ends[0])}"
    low, high = (compared(metric, end) for end in ends)
    for unit in (" ×", " %", " ms", " pt"):
        if low.endswith(unit) and high.endswith(unit):
            low = low.removesuffix(unit)
    return f"{low} to {high}"


def odds(value: float | None) -> str:
    """Evidence as odds.

    >>> odds(37.4), odds(1.25), odds(4.2e9), odds(float("inf"))
    ('37:1', '1.2:1', '>10^6:1', '∞:1')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞:1"
    if value >= 1e6:
        return ">10^6:1"
    return f"{value:,.0f}:1" if value >= 10 else f"{value:.2g}:1"


def chance(value: float | None) -> str:
    """A probability as a percentage that never claims to be certain.

    >>> chance(0.05), chance(0.9999), chance(0.0001), chance(None)
    ('5 %', '>99 %', '<1 %', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value > 0.99:
        return ">99 %"
    return "<1 %" if value < 0.01 else f"{100 * value:.0f} %"


def arm(metric: MetricView, role: str) -> str:
    """One arm's value, and how many it is of.

    >>> from hotswap.core.rollout_views import ArmView
    >>> arms = {"stable": ArmView("v1", 2000, 10, 0.005)}
    >>> arm(MetricView("error_rate", arms, None, None, 0, None, 1.0, "pass"), "stable")
    '0.5 % (10/2,000)'
    """
    view = metric.arms.get(role)
    if view is None:
        return NOTHING
    counted = f"{view.events:,}/{view.n:,}" if view.events is not None else f"{view.n:,}"
    shown = level(metric.name, view.value)
    return f"{shown} ({counted})" if view.n else NOTHING


def duration(seconds: float | None) -> str:
    """A duration; `NOTHING` if it cannot be told."""
    if seconds is None or math.isnan(seconds):
        return NOTHING
    # Whole seconds from ten on: tenths would flicker.
    return "for ever" if math.isinf(seconds) else spoken(round(seconds, 0 if seconds > 10 else 1))


def position(view: RolloutView) -> str:
    """Where it is in its steps, "step 2 of 4"; nothing once it is over."""
    if not view.steps or view.phase in ENDED:
        return ""
    return f"step {min(view.step, len(view.steps) - 1) + 1} of {len(view.steps)}"


def verdict_sentence(view: RolloutView) -> str:
    """How it ended, or how it stands, in a sentence."""
    candidate, stable = f"{view.model}/{view.version}", view.stable or "nothing"
    texts = {
        "Healthy": f"{candidate} took over from {stable}.",
        "Completed": f"The rollout of {candidate} is over; {stable} stayed in service.",
        "RolledBack": f"{candidate} was rolled back; {stable} answers every request.",
        "RollingBack": f"{candidate} is being rolled back to {stable}.",
        "Failed": f"{candidate} could not be prepared; {stable} was not touched.",
        "Degraded": f"{candidate} is bad, and there is nothing to return to.",
        "Paused": f"{candidate} waits; its traffic is frozen.",
        "Preparing": f"{candidate} is being prepared; it has no traffic yet.",
        "Progressing": f"{candidate} is being tried beside {stable}.",
        "Promoting": f"{candidate} is taking over from {stable}.",
        "Baking": f"{candidate} has all traffic; {stable} is kept warm.",
    }
    return texts.get(view.phase, f"{candidate} is in phase {view.phase}.")


def seen(view: RolloutView) -> list[str]:
    """Who saw what, a sentence each; what did not happen is left out."""
    counts = {name: count for name, count in view.counts.items() if count}
    stable, candidate = view.stable or "stable", view.version
    sentences = {
        "stable_requests": ("{stable} was assigned {n}.", "request"),
        "candidate_requests": ("{candidate} was assigned {n}.", "request"),
        "stable_failures": ("{stable} failed on {n}.", "request"),
        "candidate_failures": ("{candidate} failed on {n}.", "request"),
        "fallbacks": ("{stable} answered {n} in the place of {candidate}.", "request"),
        "pairs": ("Both were asked {n}, to compare their answers.", "request"),
        "pairs_candidate_failed": ("{candidate} failed on {n} that both were asked.", "request"),
        "mirrored": ("{candidate} was sent {n}, unseen by whoever asked.", "copy"),
        "dropped": ("For lack of room, {n} went unsent.", "copy"),
        "excluded": ("For lack of time, {n} took no part in the test.", "request"),
    }
    return [
        text.format(n=_counted(counts[name], noun), stable=stable, candidate=candidate)
        for name, (text, noun) in sentences.items()
        if name in counts
    ] + _compared(view.pairs)


def _compared(pairs: PairView | None) -> list[str]:
    """How alike two versions' answers to the same requests are."""
    if pairs is None or not pairs.both:
        return []
    sentences = [
        f"{pairs.agree:,} of the {pairs.both:,} that both answered got the same answer "
        f"({percent(100 * pairs.agree / pairs.both)})."
    ]
    if pairs.difference:
        sentences.append(
            f"Numbers differed by {number(pairs.difference)} a request on average, and by "
            f"{number(pairs.largest)} at most."
        )
    other = [
        (count, stable, candidate)
        for stable, row in pairs.confusion.items()
        for candidate, count in row.items()
        if stable != candidate
    ]
    for count, stable, candidate in sorted(other, reverse=True)[:3]:
        said = f"stable said {clean(stable)} and the candidate {clean(candidate)}"
        sentences.append(f"For {_counted(count, 'row')} {said}.")
    return sentences


def _counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} " + ("copies" if noun == "copy" else noun + "s")


def _is_share(metric: str) -> bool:
    return metric in _SHARES or metric.endswith("_rate")
