"""A rule as a sentence, with what it costs and what may be taken."""

from __future__ import annotations

from safety import checks
from safety.model import MODES, Rule, RuleSet
from safety.syntax import Signal


def sentence(rules: RuleSet, rule: Rule) -> str:
    """The rule read aloud."""
    period = rules.period
    where = f"In the modes {', '.join(rule.modes)}: w" if rule.modes != MODES else "W"
    if "after" in rule.text:
        text = (f"{where}hen {rule.text['expect']} has not come true within {rule.text['within']} "
                f"after {rule.text['after']}")  # fmt: skip
    elif rule.required < rule.window:
        text = f"{where}hen {rule.text['when']} at {rule.required} of the last {rule.window} ticks"
    elif rule.required > 1:
        text = f"{where}hen {rule.text['when']} for {rule.required} ticks ({rule.required * period * 1e3:g} ms)"
    else:
        text = f"{where}hen {rule.text['when']}"
    text += ", or when that is unknown: "
    steps = [f"{step} for {step.ticks * period * 1e3:g} ms" if step.ticks else str(step) for step in rule.ladder]
    text += ", then ".join(steps)
    until = rule.text.get("until", "the condition is certainly false")
    if rule.clears == "never":
        return f"{text}. Nothing releases it: it ends the run."
    extra = {
        "auto": "",
        "on mode change": ", and the mode changes",
        "on operator": ", and an operator re-arms the robot",
    }
    return f"{text}, until {until} for {rule.release * period * 1e3:g} ms{extra[rule.clears]}."


def explain(rules: RuleSet, name: str) -> dict[str, object]:
    """Everything about one rule."""
    rule = rules.rule(name)
    roots = [rule.when, *([rule.until] if rule.until else [])]
    names = sorted({n.name for root in roots for n in root.walk() if isinstance(n, Signal)})
    return {
        "id": rule.id,
        "sentence": sentence(rules, rule),
        "why": rule.why,
        "hazard": rule.hazard or None,
        "signals": {n: f"{rules.signals[n].source.name} [{rules.signals[n].unit.text}]" for n in names},
        "cost_us": checks.cost([rule]) * 1e6,
        "file": f"{rules.path}:{rule.line}",
    }
