"""A shadow's answers, read from its mailbox beside the loop and compared with what the active version answered."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.mailbox import OK, SLOTS, Mailbox


class Shadow:
    """Looks at the answers of one shadow.

    Attributes:
        seen: Answers looked at.
        difference: Largest difference of a control from the active version's [1].
        slowest: Longest time that an answer took [s].
    """

    def __init__(self, box: Mailbox, begun: int) -> None:
        """Looks at a mailbox for answers to ticks from `begun` on."""
        self._box, self._last = box, begun - 1
        self._rows: deque[Any] = deque(maxlen=SLOTS)  # an answer may come after the tick's row
        self.seen = 0
        self.difference = 0.0
        self.slowest = 0.0

    def look(self, rows: NDArray[Any]) -> str | None:
        """Takes in the answers that belong to rows of the tape; returns what is wrong with one, or None."""
        answers = self._box.answers.copy()
        self._rows.extend(rows[-SLOTS:])
        for row in self._rows:
            answer = answers[int(row["tick"]) % SLOTS]
            if answer["tick"] != row["tick"] or answer["tick"] <= self._last:
                continue
            self._last = int(answer["tick"])
            self.seen += 1
            control = answer["commands"]["joint"]["control"]
            if answer["status"] != OK:
                return "bad output in the shadow: its update failed"
            if not np.isfinite(control).all():
                return "bad output in the shadow: a control that is not finite"
            if np.abs(control).max() > 1.0:
                return "bad output in the shadow: a control outside [-1, 1]"
            self.slowest = max(self.slowest, float(answer["done"] - answer["begun"]) * 1e-9)
            if row["miss"] == 0:
                self.difference = max(
                    self.difference, float(np.abs(control - row["commands"]["joint"]["control"]).max())
                )
        return None
