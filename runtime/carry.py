"""What goes over a swap: the state, field by field, by name.

A worker describes its state when it is warm; the worker that is to replace it gets that description and copies every
field that has the same name, type and shape, or that says what it was called before (`state(..., was="angle")`).
Fields that only the new version has keep what its own shadow made of them, or their initial value.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.stack import Stack
from runtime.errors import SurefootError
from runtime.mailbox import STATE_BYTES
from runtime.versions import Version

SHARED = ("commands", "ticks")
"""What every stack of a robot remembers beside its layers' states."""


def state_key(versions: Mapping[str, Version]) -> int:
    """The number that a state carries: which versions exported it; positive, 63 bits."""
    text = " ".join(f"{slot}={version.hash}" for slot, version in sorted(versions.items()))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def describe(stack: Stack, key: int) -> dict[str, Any]:
    """Where the fields of a stack's state stand: name -> [kind, offset, bytes], kind being type and shape."""
    fields: dict[str, list[Any]] = {}
    for name in SHARED:
        fields[name] = _place(stack.memory, name, 0)
    for item in stack.layers:
        record, offset = stack.memory.fields[item.slot][:2]  # type: ignore[index]  # a record has fields
        for field in item.module.state:
            fields[f"{item.slot}.{field.name}"] = _place(record, field.name, offset)
    return {"key": key, "fields": fields}


def _place(record: np.dtype[Any], name: str, base: int) -> list[Any]:
    kind, offset = record.fields[name][:2]  # type: ignore[index]  # as above
    word = hashlib.sha256(str(kind).encode()).hexdigest()[:16] if kind.names else f"{kind.base.str}{kind.shape}"
    return [word, base + offset, kind.itemsize]


def copies(before: Mapping[str, Any], stack: Stack) -> NDArray[np.int64]:
    """The copies (n, 3) that carry a state over: source offset, target offset, bytes.

    Args:
        before: Another worker's `describe`: data, and checked as such.
        stack: The one that takes over.

    Raises:
        SurefootError: The description is none.
    """
    former = {f"{x.slot}.{f.name}": f"{x.slot}.{f.metadata['was']}" for x in stack.layers for f in x.module.state
              if f.metadata.get("was")}  # fmt: skip
    found = []
    for name, (kind, target, size) in describe(stack, 0)["fields"].items():
        old = before["fields"].get(former.get(name, name), before["fields"].get(name))
        if old is None or old[0] != kind or old[2] != size:
            continue
        if not isinstance(old[1], int) or not 0 <= old[1] <= STATE_BYTES - size:
            raise SurefootError(f"{name}: the state before has it at {old[1]!r}, outside of the message")
        found.append((old[1], target, size))
    return np.array(found, np.int64).reshape(-1, 3)


def lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the state's fields that only the one and only the other version has, as their descriptions say."""
    old, new = set(before.get("fields", {})), set(after.get("fields", {}))
    return sorted(old - new), sorted(new - old)
