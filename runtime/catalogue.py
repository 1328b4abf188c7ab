"""What there is: robots, stacks, planners, cost terms, and layers with their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controllers.layer import LEVELS, available, find_layer, read_module
from planners.costs import TERMS
from planners.planner import PLANNERS
from runtime import config
from runtime.plants import PLANTS


def catalogue() -> dict[str, Any]:
    """Everything that a configuration can name."""
    robots = {name: config.load(config.find("robots", name))["environment"] for name in config.available("robots")}
    stacks = {name: config.load(config.find("stacks", name)).get("about", "") for name in config.available("stacks")}
    return {
        "robots": robots,
        "stacks": stacks,
        "plants": list(PLANTS),
        "planners": dict(PLANNERS),
        "cost terms": {name: (term.function.__doc__ or "").strip() for name, term in TERMS.items()},
        "layers": {level: {name: _layer(level, name) for name in available(level)} for level in LEVELS},
    }


def _layer(level: str, name: str) -> dict[str, Any]:
    module = read_module(find_layer(level, name, config.CONFIGS))
    params = [
        {"name": f.name, "unit": f.metadata["unit"], "range": list(f.metadata["range"]), "default": f.default,
         "shape": list(f.metadata["shape"]), "doc": f.metadata["doc"]}
        for f in module.params
    ]  # fmt: skip
    return {"about": module.source.split('"""')[1].strip().splitlines()[0], "params": params}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    for kind in ("robots", "stacks", "planners", "cost terms"):
        yield f"{kind}:"
        yield from (f"  {name:<24} {about}" for name, about in document[kind].items())
    yield f"plants: {', '.join(document['plants'])}"
    for level, found in document["layers"].items():
        for name, layer in found.items():
            yield f"{level} layer {name}: {layer['about']}"
            for p in layer["params"]:
                low, high = p["range"]
                axes = f" ({' x '.join(map(str, p['shape']))})" if p["shape"] else ""
                yield f"  {p['name']:<18} [{low:g}, {high:g}] {p['unit']:<8}{axes:<18} {p['doc']}"
