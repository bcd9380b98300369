"""The status page: one self-contained HTML document, without scripts, that reloads itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from hotswap.core.drift_views import DriftView
from hotswap.core.rollout_views import RolloutView
from hotswap.core.views import ModelView, VersionView

REFRESH_SECONDS: Final = 5
#: Columns of a model that are listed as drifted, at most.
_DRIFTED: Final = 20

STYLE: Final = """
:root { color-scheme: light dark; --line: #d0d4da; --soft: #5c6570; --bad: #b3261e; --good: #1a7f4b;
  --back: #fff; --text: #1a1d21; --mark: #eef4ff; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4048; --soft: #9aa4b0; --bad: #ff8a80;
  --good: #6fd6a0; --back: #15181c; --text: #e6e9ed; --mark: #1d2735; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  background: var(--back); color: var(--text); }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .bad { color: var(--bad); }
.good { color: var(--good); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.word { white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.stable { background: var(--mark); } code { font-size: .9em; } a { color: inherit; }
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CSP: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def status_page(
    models: Sequence[ModelView],
    info: Mapping[str, Any],
    unready: str,
    error: str,
    rollouts: Sequence[RolloutView] = (),
    drifts: Sequence[DriftView] = (),
) -> str:
    """The page. ``unready``: why the node is not ready; ``error``: why there is no list;
    ``rollouts``: those that run; ``drifts``: each model's.

    Everything that is shown is escaped; the page's policy allows no script at all.
    """
    state = (
        f'<p class="bad">Not ready: {escape(unready)}</p>'
        if unready
        else '<p class="good">Ready</p>'
    )
    problem = f'<p class="bad">The models cannot be listed: {escape(error)}</p>' if error else ""
    empty = (
        "<p>No model is registered yet. Add one with <code>hotswap models add MODEL PATH</code> "
        "or put it into the models folder.</p>"
    )
    body = "".join(_model(model) for model in models) or ("" if error else empty)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>hotswap</title><style>{STYLE}</style></head><body>"
        f"<h1>hotswap {escape(str(info.get('version', '')))}</h1>{state}{problem}"
        f'<p class="soft">Predictions: {escape(str(info.get("data", "")))} · '
        f"up {_duration(info.get('uptime_seconds'))} · "
        '<a href="/docs">API</a> · <a href="/metrics">metrics</a></p>'
        f"{_rollouts(rollouts)}{_drifts(drifts)}{body}</body></html>"
    )


def _drifts(drifts: Sequence[DriftView]) -> str:
    rows = "".join(
        f'<tr><td>{escape(view.model)}</td><td class="bad">{escape(each.column)}</td>'
        f'<td class="number">{each.distance or 0.0:.3f}</td><td>{escape(each.cause)}</td></tr>'
        for view in drifts
        for each in view.alarmed()[:_DRIFTED]
    )
    if not rows:
        return ""
    return (
        '<h2>Drift</h2><div class="scroll"><table><thead><tr><th>Model</th><th>Column</th>'
        '<th class="number">Distance</th><th>What changed</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _rollouts(rollouts: Sequence[RolloutView]) -> str:
    if not rollouts:
        return ""
    rows = "".join(_rollout(view) for view in rollouts)
    return (
        '<h2>Rollouts</h2><div class="scroll"><table><thead><tr><th>Model</th><th>Candidate</th>'
        '<th>Phase</th><th>Step</th><th class="number">Weight</th><th>Message</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _rollout(view: RolloutView) -> str:
    colour = {"RollingBack": "bad", "Healthy": "good", "Baking": "good"}.get(view.phase, "soft")
    step = f"{min(view.step + 1, len(view.steps))} of {len(view.steps)}"
    current = next((each.label for each in view.steps if each.state == "current"), "")
    return (
        f"<tr><td>{escape(view.model)}</td><td>{escape(view.version)}</td>"
        f'<td class="word {colour}">{escape(view.phase)}</td>'
        f"<td>{step}{escape(f': {current}') if current else ''}</td>"
        f'<td class="number">{view.weights.get(view.version, 0.0):g} %</td>'
        f"<td>{escape(view.message)}</td></tr>"
    )


def _model(model: ModelView) -> str:
    active = escape(model.active) if model.active else "none active"
    warnings = "".join(f'<p class="bad">{escape(text)}</p>' for text in model.warnings)
    rows = "".join(_version(version) for version in reversed(model.versions))
    return (
        f'<h2>{escape(model.name)} <span class="soft">{active}, revision {model.revision}'
        f'</span></h2>{warnings}<div class="scroll"><table><thead><tr><th>Version</th>'
        '<th>State</th><th>Role</th><th class="number">Traffic</th><th>Runtime</th>'
        '<th class="number">Instances</th><th class="number">Memory</th><th>Reason</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _version(version: VersionView) -> str:
    colour = {"READY": "good", "UNAVAILABLE": "bad"}.get(version.state, "soft")
    reason = version.reason or ("not validated" if version.unvalidated else "")
    memory = f"{version.memory_bytes / 1024**2:.1f} MiB" if version.memory_bytes else ""
    return (
        f'<tr class="{"stable" if version.role == "stable" else "other"}">'
        f"<td>{escape(version.version)}</td>"
        f'<td class="{colour}">{escape(version.state)}</td><td>{escape(version.role)}</td>'
        f'<td class="number">{version.weight:g} %</td><td>{escape(version.runtime)}</td>'
        f'<td class="number">{version.instances}</td><td class="number">{memory}</td>'
        f"<td>{escape(reason)}</td></tr>"
    )


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d" * bool(days), f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes)]
    return " ".join(part for part in parts if part) or f"{rest} s"
