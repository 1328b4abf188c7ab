"""The page: everything that a run store knows, as one static HTML file that needs no server and no network."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agent_bridge.records.derived import ledger_of, sample_efficiency
from agent_bridge.records.lessons import in_force
from agent_bridge.records.trial import Row
from runtime.errors import SurefootError
from runtime.journal import Journal, replace

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.dim { color: var(--dim); } img, video { max-width: 100%; background: #fff; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: .9em; }
ul.tree, ul.tree ul { list-style: none; padding-left: 1.3rem; border-left: 1px solid var(--line); }
.badge { border-radius: 4px; padding: 0 .4em; color: #fff; font-size: .85em; }
.accept, .active { background: #1a7f37; } .reject, .quarantined { background: #b42318; }
.inconclusive { background: #8a6d00; } .unchanged { background: #57606a; } .error, .rolled { background: #9a3412; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .7rem; overflow-wrap: anywhere; }
"""
JUDGED = ("gate", "compression", "candidate")
VIDEO = ("*.mp4", "*.webm", "*.gif")


def write_page(store: Path, path: Path) -> Path:
    """Writes the page of a store; videos are linked, everything else is in it.

    Raises:
        SurefootError: The store has no ledger, or the disk refuses.
    """
    rows = ledger_of(store).rows()
    if not rows:
        raise SurefootError(f"{store}: no trials yet; nothing to show")
    replace(path, render(store, rows, path.resolve().parent).encode())
    return path


def render(store: Path, rows: Sequence[Row], beside: Path) -> str:
    """The page as text; links are relative to the folder `beside`."""
    last = rows[-1]
    found = ledger_of(store).verify()
    state = "the ledger verifies" if found.ok else f"the ledger does not verify: {found.reason}"
    parts = [
        f"<h1>{escape(store.resolve().parent.name)} / {escape(store.name)}</h1>",
        f'<p class="dim">{len(rows)} trials, {last.total_episodes:,} episodes, '
        f"{last.total_environment_steps:,} environment steps, {last.total_planner_steps:,} planner steps; "
        f"{escape(state)}; written {time.strftime('%Y-%m-%d %H:%M')}</p>",
        _section("Sample efficiency", _plot(rows)),
        _section("Lineage", _lineage(rows, _stages(store))),
        _section("Trials", _trials(rows)),
        _section("Failures", _failures(store, beside)),
        _section("Swaps", _swaps(store)),
        _section("Lessons", _list(f"{escape(r.trial.lesson)} <span class=dim>trial {r.index}</span>"
                                  for r in in_force(rows))),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Surefoot: trials</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{''.join(parts)}\n</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{body or '<p class=dim>none yet</p>'}\n"


def _plot(rows: Sequence[Row]) -> str:
    if not any(row.score_mean is not None for row in rows):
        return ""
    data = base64.b64encode(sample_efficiency(rows)).decode()
    return f'<img alt="score and running best against environment steps" src="data:image/png;base64,{data}">'


def _badge(word: str) -> str:
    return f'<span class="badge {escape(word.split()[0])}">{escape(word)}</span>' if word else ""


def _stages(store: Path) -> dict[str, str]:
    """Version -> where it stands in the run that touched it last."""
    stages: dict[str, str] = {}
    for path in sorted(store.glob("*/events.jsonl")):
        for event in Journal(path).rows():
            if "stage" in event:
                stages |= dict.fromkeys(event["slots"].values(), str(event["stage"]))
    return stages


def _lineage(rows: Sequence[Row], stages: Mapping[str, str]) -> str:
    """A tree per slot: what was made from what, and what was said about it."""
    judged = [row for row in rows if row.trial.kind in JUDGED and row.trial.candidate and row.trial.parent]
    children: dict[str, list[Row]] = {}
    for row in judged:
        children.setdefault(row.trial.parent, []).append(row)
    made = {row.trial.candidate for row in judged}
    roots = [parent for parent in children if parent not in made]

    def tree(version: str, path: tuple[str, ...]) -> str:
        if version in path:  # a version that became its own ancestor: a change and its undoing
            return ""
        items = [
            f"<li><code>{row.trial.candidate[:12]}</code> {_badge(row.trial.verdict or 'error')} "
            f"{_badge(stages.get(row.trial.candidate, ''))} trial {row.index}: {escape(row.trial.hypothesis[:160])}"
            f"{tree(row.trial.candidate, (*path, version))}</li>"
            for row in children.get(version, [])
        ]
        return f'<ul class="tree">{"".join(items)}</ul>' if items else ""

    return "".join(
        f"<p><b>{escape(children[root][0].trial.slot)}</b>: <code>{root[:12]}</code> {_badge(stages.get(root, ''))}</p>"
        f"{tree(root, ())}"
        for root in roots
    )


def _trials(rows: Sequence[Row]) -> str:
    head = ("#", "when", "kind", "slot", "version", "hypothesis", "verdict", "why", "mean", "best", "steps")
    numeric = {"#", "mean", "best", "steps"}
    lines = []
    for row in reversed(rows):
        t = row.trial
        cells = (
            str(row.index), time.strftime("%m-%d %H:%M", time.localtime(row.time)), escape(t.kind), escape(t.slot),
            f"<code>{t.candidate[:12]}</code>", escape((t.hypothesis or t.lesson or t.name)[:240]), _badge(t.verdict),
            escape(_why(row)), _number(row.score_mean), _number(row.running_best), f"{t.environment_steps:,}",
        )  # fmt: skip
        lines.append(
            "".join(f'<td class="{"n" if h in numeric else ""}">{c}</td>' for h, c in zip(head, cells, strict=True))
        )
    titles = "".join(f'<th class="{"n" if h in numeric else ""}">{h}</th>' for h in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def _why(row: Row) -> str:
    if row.trial.error:
        return row.trial.error[:400]
    if not row.trial.gates:
        return row.trial.change[:200]
    stage = row.trial.gates[-1]
    return f"{stage['name']}: {'; '.join(stage['reasons'])}"[:400]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _failures(store: Path, beside: Path) -> str:
    cards = []
    for path in sorted((store / "failures").glob("*/failure.json")):
        try:
            about: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:
            about = {"reason": "its description cannot be read"}
        films = [film for pattern in VIDEO for film in sorted(path.parent.glob(pattern))]
        shown = "".join(_film(os.path.relpath(film.resolve(), beside)) for film in films)
        version = escape(str(about.get("version", ""))[:12])
        facts = ", ".join(f"{k} {about[k]}" for k in ("slot", "tick") if about.get(k) is not None)
        cards.append(
            f'<div class="card"><b>{escape(path.parent.name)}</b> <code>{version}</code>'
            f"<br>{escape(str(about.get('reason', '')))}<br><span class=dim>{escape(facts)}</span>{shown}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _film(link: str) -> str:
    source = escape(link, quote=True)
    return (
        f'<img src="{source}">'
        if link.endswith(".gif")
        else f'<video controls preload="metadata" src="{source}"></video>'
    )


def _swaps(store: Path) -> str:
    found = []
    for path in sorted(store.glob("*/events.jsonl")):
        lines = []
        for event in Journal(path).rows():
            slots = ", ".join(f"{slot} {str(digest)[:12]}" for slot, digest in dict(event.get("slots", {})).items())
            what, tick = str(event.get("stage", event.get("event", ""))), event.get("tick")
            lines.append(f"{_badge(what)} {escape(slots)} {'' if tick is None else f'tick {tick}'} "
                         f"<span class=dim>{escape(str(event.get('reason', '')))}</span>")  # fmt: skip
        found.append(f"<p><b>{escape(path.parent.name)}</b></p>{_list(lines)}")
    return "".join(found)


def _list(items: Iterable[str]) -> str:
    lines = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{lines}</ul>" if lines else ""
