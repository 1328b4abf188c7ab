"""Imported by a probe before it locks itself down: a worker that asked for all that a loop wants."""

from runtime import realtime

refused = [*realtime.fifo(realtime.LAYER_PRIORITY), *realtime.lock_memory()]
