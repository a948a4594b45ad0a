"""The paper's stopping rule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass
class EarlyStopping:
    """Stops when the validation bound (the ELBO, unless beta is not 1) has not risen for more than `patience` epochs.

    The count stays at 0 while epoch < warmup, but the best epochs found then count (unlike Keras's
    `EarlyStopping(start_from_epoch=...)`, which forgets them).

    Attributes:
      patience: maximum number of epochs without a better bound.
      warmup: number of epochs of the warm-up.
      best: the highest bound so far.
      best_epoch: the epoch of this bound.
      waited: number of epochs since then, as the rule counts them.
    """

    patience: int
    warmup: int
    best: float = -math.inf
    best_epoch: int = 0
    waited: int = 0

    def update(self, epoch: int, bound: float) -> bool:
        """Records an epoch (counted from 1); returns whether it is the best so far."""
        if bound > self.best:
            self.best, self.best_epoch, self.waited = bound, epoch, 0
            return True
        self.waited = 0 if epoch < self.warmup else self.waited + 1
        return False

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint; -inf, which JSON does not have, becomes None."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "best_epoch": self.best_epoch, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the result of `state`.

        Raises:
          KeyError, TypeError, ValueError: it is something else.
        """
        best = -math.inf if state["best"] is None else float(state["best"])
        if math.isnan(best) or not all(type(state[name]) is int for name in ("best_epoch", "waited")):
            raise ValueError("the state of a stopping rule is a number and two integers")
        self.best, self.best_epoch, self.waited = best, state["best_epoch"], state["waited"]

    def left(self, epoch: int, epochs: int) -> int:
        """Returns how many more epochs follow `epoch`, out of at most `epochs`, if none of them is better."""
        held = max(0, self.warmup - 1 - epoch)  # epochs in which the count does not rise
        return min(epochs - epoch, held + self.patience + 1 - self.waited)

    @property
    def stop(self) -> bool:
        """Whether training is to stop now."""
        return self.waited > self.patience
