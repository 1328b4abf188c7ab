"""A child for the sandbox tests: locks itself down, then runs the source that it reads from a pipe.

Usage: sandbox_probe.py SOURCE_FD ANSWER_FD LIBRARIES LIMITS. The source defines `acts`, a dict of functions; the
answers are JSON objects, one a line: the level, then for each act "done: <result>", or what went wrong (the name of the
error number, or of the exception).
"""

import errno
import importlib
import json
import os
import sys
from pathlib import Path

from runtime.sandbox import Limits, lock_down

sys.path.append(str(Path(__file__).parent))
source_fd, answer_fd = int(sys.argv[1]), int(sys.argv[2])
for library in filter(None, sys.argv[3].split(",")):
    importlib.import_module(library)
level = lock_down(Limits.from_json(sys.argv[-1]))


def answer(row: dict[str, object]) -> None:
    os.write(answer_fd, json.dumps(row).encode() + b"\n")


answer({"level": str(level)})
source = b""
while chunk := os.read(source_fd, 65536):
    source += chunk
guest: dict[str, object] = {"__name__": "guest"}
exec(compile(source, "guest", "exec"), guest)
for name, act in guest["acts"].items():  # type: ignore[attr-defined]
    try:
        outcome = f"done: {act()}"
    except OSError as error:
        outcome = errno.errorcode[error.errno or 0]
    except BaseException as error:
        outcome = type(error).__name__
    answer({name: outcome})
