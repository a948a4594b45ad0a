"""The shapes (m, k, n) of every matrix product of a task, [m, k] times [k, n]."""

from __future__ import annotations


def _network(rows: int, widths: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(rows, k, n) for k, n in widths]


def encoder(sizes: dict) -> list[tuple[int, int]]:
    """Widths (in, out) of the encoder's products; gate and value in one."""
    return [
        (sizes["X"], 2 * sizes["H"]),
        (sizes["H"], 2 * sizes["H"]),
        (sizes["H"], sizes["D"]),
        (sizes["H"], sizes["D"]),
    ]


def decoder(sizes: dict) -> list[tuple[int, int]]:
    """Widths (in, out) of the decoder's products."""
    return [(sizes["D"], 2 * sizes["H"]), (sizes["H"], 2 * sizes["H"]), (sizes["H"], sizes["X"])]


def train_step(sizes: dict) -> list[tuple[int, int, int]]:
    """Forward products, and for each the gradients of its weights and of its input.

    The batch's images need no gradient; the pseudo-inputs do.
    """
    forward = (
        _network(sizes["B"], encoder(sizes))
        + _network(sizes["K"], encoder(sizes))
        + _network(sizes["B"], decoder(sizes))
    )
    weights = [(k, m, n) for m, k, n in forward]
    inputs = [(m, n, k) for m, k, n in forward[1:]]
    return forward + weights + inputs + [(sizes["B"], 2 * sizes["D"], sizes["K"])] * 3


def log_likelihood(sizes: dict) -> list[tuple[int, int, int]]:
    """One image: S latents decoded, and held against K components."""
    return [*_network(sizes["S"], decoder(sizes)), (sizes["S"], 2 * sizes["D"], sizes["K"])]


TASKS = {"train_step": train_step, "log_likelihood": log_likelihood}
