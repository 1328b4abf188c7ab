"""The one exception for bad input: a single line that says what, where, and what would be right."""

import difflib
from collections.abc import Iterable


class SurefootError(Exception):
    """Bad input from a person or an agent; the command line prints it as one line and exits with 2."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Ends an error message about an unknown name: the nearest valid one, then all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(names)}"
