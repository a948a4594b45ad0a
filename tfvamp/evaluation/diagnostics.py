"""What the latents do."""

from __future__ import annotations

import numpy as np

ACTIVITY_THRESHOLD = 0.01  # Burda, Grosse and Salakhutdinov (2016)


def active_units(means: np.ndarray) -> int:
    """The number of latents with Var_x(E_q[z | x]) >= 0.01, from posterior means [N, D]."""
    return int((means.var(axis=0) >= ACTIVITY_THRESHOLD).sum())
