"""The tape on disk: MCAP files that Foxglove and PlotJuggler open, and that replay reads back bit for bit.

Channel `tape` holds every row exactly as it stood in memory (NaN included), described by its schema. JSON has no NaN
and is slow, so the channels for viewers (`signals`, `commands`, `guard`) are JSON, at most 100 a second, with NaN as
null; `events` is JSON too. A run is a sequence of segments `tape-000.mcap`, `tape-001.mcap`: a new one begins whenever
a recorder starts, and a segment without an end (its recorder was killed) is read as far as it goes.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Message
from mcap.stream_reader import StreamReader
from mcap.writer import Writer
from numpy.typing import NDArray
from zstandard import ZstdError

from runtime.errors import SurefootError
from runtime.records import COMMANDS, SIGNALS, Field, Robot
from runtime.tape import FACT_FIELDS, GUARD_FIELDS, TERMS, row_dtype

VIEW_PERIOD = 10_000_000  # [ns] between two messages of a viewer's channel
_INDEX = struct.Struct("<q")


class TapeWriter:
    """Writes rows and events of one robot to one MCAP segment."""

    def __init__(self, robot: Robot, path: Path, *, epoch_offset: int = 0) -> None:
        """Opens `path`; `epoch_offset` [ns] is added to the rows' clock to give the time of day."""
        self._robot = robot
        self._offset = epoch_offset
        self._file: BinaryIO = path.open("wb")
        self._writer = Writer(self._file, chunk_size=1 << 18)
        self._writer.start(profile="surefoot", library="surefoot")
        dtype = row_dtype(robot)
        layout = json.dumps({"dtype": repr(dtype), "itemsize": dtype.itemsize, "units": _units(robot)})
        schema = self._writer.register_schema("surefoot.Row", "surefoot/numpy", layout.encode())
        self._tape = self._writer.register_channel("tape", "surefoot/numpy", schema, {"robot": robot.name})
        self._signals = self._json_channel("signals", _tree_schema(robot, SIGNALS))
        self._commands = self._json_channel("commands", _tree_schema(robot, COMMANDS))
        self._guard = self._json_channel("guard", _guard_schema(robot))
        self._events = self._json_channel("events", {"tick": {"type": "integer"}, "event": {"type": "string"}})
        self._next_view = -(1 << 62)

    def _json_channel(self, topic: str, properties: dict[str, Any]) -> int:
        title = f"surefoot.{topic.capitalize()}"
        schema = {"type": "object", "title": title, "properties": properties}
        identity = self._writer.register_schema(title, "jsonschema", json.dumps(schema).encode())
        return self._writer.register_channel(topic, "json", identity)

    def rows(self, first: int, rows: NDArray[Any]) -> None:
        """Writes rows; `first` is the index in the run of the first one, by which a reader notices a gap."""
        for index, row in enumerate(rows, first):
            now = int(row["wake"]) + self._offset
            self._writer.add_message(self._tape, now, _INDEX.pack(index) + row.tobytes(), now, index & 0xFFFFFFFF)
            if row["wake"] >= self._next_view or row["miss"] or row["start"]:
                self._next_view = int(row["wake"]) + VIEW_PERIOD
                self._view(now, row)

    def _view(self, now: int, row: Any) -> None:
        guard = {name: row[name].item() for name in GUARD_FIELDS}
        guard |= {"terms": {name: row["terms"][name].item() for name in TERMS}}
        guard |= {"facts": {name: row["facts"][name].item() for name in FACT_FIELDS}}
        guard |= {"sent": _named(self._robot, row["sent"])}
        for channel, values in (
            (self._signals, _tree(self._robot, row["signals"])),
            (self._commands, _tree(self._robot, row["commands"])),
            (self._guard, guard),
        ):
            self._message(channel, now, values)

    def event(self, time_ns: int, tick: int, event: dict[str, Any]) -> None:
        """Writes an event: `tick`, `event` (its name), and whatever else it says."""
        self._message(self._events, time_ns + self._offset, {"tick": tick, **event})

    def _message(self, channel: int, now: int, values: dict[str, Any]) -> None:
        self._writer.add_message(channel, now, json.dumps(_finite(values)).encode(), now)

    def flush(self) -> None:
        """Hands everything so far to the operating system, so that a killed recorder loses nothing that was drained."""
        self._writer.flush()  # type: ignore[no-untyped-call]  # mcap's own lack

    def close(self) -> None:
        """Ends the file properly."""
        self._writer.finish()  # type: ignore[no-untyped-call]  # mcap's own lack
        self._file.close()


@dataclass(frozen=True)
class Tape:
    """What a run's files hold.

    Attributes:
        rows: All rows up to the first gap or damage, in order.
        events: All events, with `time` [ns].
        problem: Where and why the tape is not whole, or None.
    """

    rows: NDArray[Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None


def segments(folder: Path) -> list[Path]:
    """Returns the tape segments of a run, in order."""
    return sorted(folder.glob("tape-*.mcap"))


def read_tape(robot: Robot, folder: Path) -> Tape:
    """Reads a run's tape as far as it is valid.

    Raises:
        SurefootError: There is no tape, or it is another robot's.
    """
    paths = segments(folder)
    if not paths:
        raise SurefootError(f"{folder}: no tape (tape-*.mcap) here")
    dtype = row_dtype(robot)
    rows: list[bytes] = []
    events: list[dict[str, Any]] = []
    problem: str | None = None
    for number, path in enumerate(paths):
        damage = None
        for channel, message in _messages(path):
            if isinstance(channel, str):
                damage = channel
            elif channel.topic == "events":
                events.append({"time": message.log_time, **json.loads(message.data)})
            elif channel.topic == "tape" and problem is None:
                if len(message.data) != _INDEX.size + dtype.itemsize:
                    raise SurefootError(f"{path}: its rows are not those of {robot.name} in this version of surefoot")
                index = _INDEX.unpack_from(message.data)[0]
                row = message.data[_INDEX.size :]
                if index > len(rows):
                    problem = f"{path.name}: {index - len(rows)} rows are missing after row {len(rows)}"
                elif index == len(rows):
                    rows.append(row)
                elif row != rows[index]:  # a row that a killed recorder had already saved comes twice, but the same
                    problem = f"{path.name}: another recording begins after row {len(rows)}"
        # A segment that is followed by another one was cut by its recorder's death, and the rest is in the next.
        if damage and number == len(paths) - 1 and problem is None:
            problem = f"{path.name}: {damage} after row {len(rows)}"
    return Tape(np.frombuffer(b"".join(rows), dtype), events, problem)


def _messages(path: Path) -> Iterator[tuple[Channel | str, Message]]:
    """Yields (channel, message); at damage, yields its description in place of the channel, and ends."""
    channels: dict[int, Channel] = {}
    nothing = Message(0, 0, b"", 0, 0)
    with path.open("rb") as stream:
        try:
            for record in StreamReader(stream, validate_crcs=True).records:
                if isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    yield channels[record.channel_id], record
        except (McapError, ZstdError, struct.error, KeyError, ValueError, EOFError, OSError) as error:
            yield f"damaged or cut short ({type(error).__name__})", nothing


def _names(robot: Robot, shape: tuple[int, ...]) -> list[str]:
    return [j for leg in robot.joints for j in leg] if len(shape) == 2 else list(robot.legs)


def _named(robot: Robot, values: Any) -> dict[str, float]:
    """Returns an array over joints or legs as a mapping from their names."""
    return dict(zip(_names(robot, values.shape), values.ravel().tolist(), strict=True))


def _tree(robot: Robot, record: Any) -> dict[str, Any]:
    """Returns a nested record as nested mappings."""
    out: dict[str, Any] = {}
    for name in record.dtype.names:
        value = record[name]
        if value.dtype.names:
            out[name] = _tree(robot, value)
        else:
            out[name] = _named(robot, value) if value.shape else value.item()
    return out


def _finite(value: Any) -> Any:
    """Returns the same with NaN and infinities as null, which is all that JSON knows of them."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(unit: str, doc: str) -> dict[str, Any]:
    return {"type": ["number", "null"], "unit": unit, "description": f"[{unit}] {doc}"}


def _tree_schema(robot: Robot, fields: tuple[Field, ...]) -> dict[str, Any]:
    """Returns JSON-schema properties of dotted fields, units in their descriptions."""
    root: dict[str, Any] = {}
    for entry in fields:
        *parents, leaf = entry.name.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {"type": "object", "properties": {}})["properties"]
        number = _number(entry.unit, entry.doc)
        names = _names(robot, (0,) * len(entry.shape)) if entry.shape else []
        node[leaf] = {"type": "object", "properties": dict.fromkeys(names, number)} if names else number
    return root


def _guard_schema(robot: Robot) -> dict[str, Any]:
    properties: dict[str, Any] = {name: _number(unit, doc) for name, (_, unit, doc) in GUARD_FIELDS.items()}
    properties["terms"] = {"type": "object", "properties": {t: _number("1", f"Reward: {t}.") for t in TERMS}}
    properties["facts"] = {"type": "object", "properties": {n: _number(*field) for n, field in FACT_FIELDS.items()}}
    sent = _number("1", "Actuator control sent to the plant.")
    properties["sent"] = {"type": "object", "properties": dict.fromkeys(_names(robot, (0, 0)), sent)}
    return properties


def _units(robot: Robot) -> dict[str, str]:
    return {name: unit for name, (_, unit, _) in GUARD_FIELDS.items()} | {n: f.unit for n, f in robot.fields.items()}
