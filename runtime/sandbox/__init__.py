"""Where guests run: a process of their own that can compute, use threads, and do nothing else.

The host calls `spawn`; the trusted code at the start of the child imports its libraries and calls `lock_down` while it
is still single-threaded; only then does it read the guest's source, as bytes, from a pipe that it inherited. From that
moment the process opens no file for writing and reads none but the libraries', reaches no socket, starts no program or
process, signals nobody, and changes no limit or priority.

This contains accidents and ordinary misbehaviour. It does not claim more: kernel exploits, side channels, whether a
path exists, and contention for processor and caches are outside of it.
"""

from runtime.sandbox.limits import Level, Limits
from runtime.sandbox.lockdown import available_level, lock_down
from runtime.sandbox.spawn import Child, spawn

__all__ = ["Child", "Level", "Limits", "available_level", "lock_down", "spawn"]
