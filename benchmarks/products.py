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


def lower_layer(sizes: dict) -> list[tuple[int, int]]:
    """Widths of the other networks of an HVAE: q(z1 | x, z2) without its first product (on the images), and p(z1 | z2)."""
    to_gaussian = [(sizes["H"], sizes["D"]), (sizes["H"], sizes["D"])]
    joint = [(sizes["D"], 2 * sizes["H"]), (2 * sizes["H"], 2 * sizes["H"])]
    conditional = [(sizes["D"], 2 * sizes["H"]), (sizes["H"], 2 * sizes["H"])]
    return joint + to_gaussian + conditional + to_gaussian


def joint_decoder(sizes: dict) -> list[tuple[int, int]]:
    """Widths of the products of a decoder of z1 and z2."""
    of_latents = [(sizes["D"], 2 * sizes["H"])] * 2
    return [*of_latents, (2 * sizes["H"], 2 * sizes["H"]), (sizes["H"], sizes["X"])]


def train_step(sizes: dict) -> list[tuple[int, int, int]]:
    """A step of the VAE."""
    of_images, *encoder_rest = _network(sizes["B"], encoder(sizes))
    rest = encoder_rest + _network(sizes["K"], encoder(sizes)) + _network(sizes["B"], decoder(sizes))
    return _trained([of_images], rest, sizes)


def hvae_train_step(sizes: dict) -> list[tuple[int, int, int]]:
    """A step of the HVAE: the images go into both encoders."""
    of_images, *encoder_rest = _network(sizes["B"], encoder(sizes))
    rest = encoder_rest + _network(sizes["K"], encoder(sizes))
    rest += _network(sizes["B"], lower_layer(sizes) + joint_decoder(sizes))
    return _trained([of_images] * 2, rest, sizes)


def _trained(of_images: list[tuple[int, int, int]], rest: list[tuple[int, int, int]], sizes: dict):
    """Forward products, and for each the gradients of its weights and of its input; and the prior's density.

    The batch's images need no gradient; the pseudo-inputs do.
    """
    forward = of_images + rest
    weights = [(k, m, n) for m, k, n in forward]
    inputs = [(m, n, k) for m, k, n in rest]
    return forward + weights + inputs + [(sizes["B"], 2 * sizes["D"], sizes["K"])] * 3


def log_likelihood(sizes: dict) -> list[tuple[int, int, int]]:
    """One image: S latents decoded, and held against K components."""
    return [*_network(sizes["S"], decoder(sizes)), (sizes["S"], 2 * sizes["D"], sizes["K"])]


def hvae_log_likelihood(sizes: dict) -> list[tuple[int, int, int]]:
    """One image of the HVAE: S latents z2, for each q(z1 | x, z2), p(z1 | z2) and the decoder; and K components."""
    of_samples = _network(sizes["S"], lower_layer(sizes) + joint_decoder(sizes))
    return [*of_samples, (sizes["S"], 2 * sizes["D"], sizes["K"])]


def gradients(sizes: dict) -> list[tuple[int, int, int]]:
    """M latents decoded and held against K components, forward and back to the latents: no gradients of weights."""
    forward = [*_network(sizes["M"], decoder(sizes)), (sizes["M"], 2 * sizes["D"], sizes["K"])]
    return forward + [(m, n, k) for m, k, n in forward]


TASKS = {
    "gradients": gradients,
    "train_step": train_step,
    "hvae_train_step": hvae_train_step,
    "log_likelihood": log_likelihood,
    "hvae_log_likelihood": hvae_log_likelihood,
}
