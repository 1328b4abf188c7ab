"""Where the work on a stack stands: the versions that a proposal must be based on, and how an accepted one gets there.

With a robot running, these are the versions active in it, and promotion is a swap. Without one they are in
`bases/STACK.yaml` of the run store, a stack file that `surefoot run` takes; promotion rewrites it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from controllers.stack import Stack
from runtime import config
from runtime.control import ask, runs
from runtime.errors import SurefootError
from runtime.journal import Journal, replace
from runtime.lineage import STACK_KEYS
from runtime.verdicts import default_gate, gate_hash, refusal
from runtime.versions import Version, VersionStore, stack_versions

FOLDER = "../versions/"


def find_robot(store: Path, stack: str) -> Path | None:
    """The folder of the run of a stack that is going on, or None.

    Raises:
        SurefootError: There is more than one.
    """
    found = []
    for folder in runs(store):
        try:
            if ask(folder, {"ask": "status"}).get("stack") == stack:
                found.append(folder)
        except SurefootError:
            continue  # it ended between being listed and being asked
    if len(found) > 1:
        raise SurefootError(f"{len(found)} runs of {stack} are going on; name one with --run: {_names(found)}")
    return found[0] if found else None


def _names(folders: list[Path]) -> str:
    return ", ".join(f.name for f in folders)


def base_versions(store: Path, stack: Stack, run: Path | None) -> dict[str, Version]:
    """The version in every slot; all of them are in the store afterwards.

    Raises:
        SurefootError: The run does not answer, or a version is not in the store.
    """
    versions = VersionStore(store / "versions")
    if run is not None:
        from runtime.swap_client import slots

        return {slot: versions.get(str(entry["active"])) for slot, entry in slots(run).items()}
    base = {slot: versions.get(digest) for slot, digest in _adopted(store, stack).items()}
    base = stack_versions(stack) | base
    for version in base.values():
        versions.submit(version)
    return base


def adopt(store: Path, stack: Stack, slot: str, expected: str, candidate: str) -> Path:
    """Makes a version the base of further work where no robot runs; returns the stack file that has it.

    As a swap does, it asks for the verdict of the gate in force against the versions that are in all slots now.

    Raises:
        SurefootError: A base is no longer the one that the candidate was compared with, or the verdict is another.
    """
    path = store / "bases" / f"{stack.name}.yaml"
    with Journal(path).locked():
        base = base_versions(store, stack, None)
        require_base(slot, expected, base[slot].hash)
        active = {name: version.hash for name, version in base.items()}
        gate = gate_hash(default_gate(stack.robot.name))
        why = refusal(VersionStore(store / "versions"), {slot: candidate}, active, gate, stack.name)
        if why is not None:
            raise SurefootError(why)
        replace(path, yaml.safe_dump(_document(store, stack, base, slot, candidate), sort_keys=False).encode())
    return path


def require_base(slot: str, expected: str, active: str) -> None:
    """Refuses what was made for another base.

    Raises:
        SurefootError: The base is no longer active.
    """
    if expected != active:
        raise SurefootError(f"{slot}: its base {expected[:12]} is no longer active, {active[:12]} is; start from that")


def _document(store: Path, stack: Stack, base: Mapping[str, Version], slot: str, candidate: str) -> dict[str, Any]:
    chosen = {name: version.hash for name, version in base.items()} | {slot: candidate}
    shipped = {name: version.hash for name, version in stack_versions(stack).items()}
    versions = VersionStore(store / "versions")
    document = copy.deepcopy(stack.document)
    for name, digest in chosen.items():
        if digest != shipped[name]:
            document["layers"][name] = _section(stack.document["layers"][name], versions.get(digest))
    return document


def _section(given: Mapping[str, Any], version: Version) -> dict[str, Any]:
    kept = {key: value for key, value in given.items() if key in STACK_KEYS and key != "use"}
    return {"use": f"{FOLDER}{version.hash}/layer.py", **kept, **version.values}


def _adopted(store: Path, stack: Stack) -> dict[str, str]:
    """Slot -> hash, of the slots that hold something else than what the stack ships with."""
    path = store / "bases" / f"{stack.name}.yaml"
    if not path.exists():
        return {}
    layers = config.Section(config.load(path), str(path)).section("layers").data
    uses = {slot: str(section["use"]) for slot, section in layers.items()}
    return {slot: use.removeprefix(FOLDER).split("/")[0] for slot, use in uses.items() if use.startswith(FOLDER)}
