"""What the kernel says of a timer descriptor."""

from pathlib import Path


def remaining(descriptor: int) -> float:
    """Returns how long a timer descriptor of this process still stands [s], 0 if it does not."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("it_value:"):
            seconds, nanoseconds = line.partition("(")[2].rstrip(")").split(",")
            return int(seconds) + 1e-9 * int(nanoseconds)
    raise AssertionError(f"descriptor {descriptor} is not a timer")
