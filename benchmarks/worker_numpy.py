"""Times the bare matrix products in NumPy."""

from __future__ import annotations

import time

import numpy as np
import products
from harness import serve


def bare(sizes):
    """The matrix products alone, into buffers made before."""
    rng = np.random.default_rng(0)
    buffers = [
        (
            rng.normal(size=(m, k)).astype(np.float32),
            rng.normal(size=(k, n)).astype(np.float32),
            np.empty((m, n), np.float32),
        )
        for m, k, n in products.TASKS[sizes["shapes"]](sizes)
    ]
    start = time.perf_counter()
    for _ in range(sizes["repeat"]):
        for a, b, out in buffers:
            np.matmul(a, b, out=out)
    return (time.perf_counter() - start) / sizes["repeat"]


if __name__ == "__main__":
    serve({"bare": bare})
