"""Writes torch_constants.json: the encoders' convolutions as the paper's code has them, in PyTorch and float64.

Run it from the root of the repository, in an environment with NumPy and PyTorch 2.13.0; TensorFlow is not needed:

    python -m tests.make_torch_constants

`test_conv.py` builds the same from the layers of tfvamp. It takes from here the weights and images, which are
quotients of integers, the same bits everywhere, and needs no PyTorch.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np

PATH = pathlib.Path(__file__).parent / "torch_constants.json"
# (filters, kernel size, stride, padding) of the paper's code.
STACKS = {
    "encoder": ((32, 7, 1, 3), (32, 3, 2, 1), (64, 5, 1, 2), (64, 3, 2, 1), (6, 3, 1, 1)),
    "joint_encoder": ((32, 3, 1, 1), (32, 3, 2, 1), (64, 3, 1, 1), (64, 3, 2, 1), (6, 3, 1, 1)),
}
SHAPES = ((28, 28, 1), (28, 20, 1), (9, 7, 2))
PARTS = ("value_kernel", "value_bias", "gate_kernel", "gate_bias")


def formula(shape: tuple[int, ...], number: int) -> np.ndarray:
    """Numbers in [-1/2, 1/2) that look random: squares modulo a prime."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return (index + 1009 * (number + 1)) ** 2 % 10007 / 10007 - 0.5


def images(shape: tuple[int, int, int]) -> np.ndarray:
    """Two images [2, H, W, C] in [0, 1)."""
    return formula((2, *shape), 0) + 0.5


def weights(layer: int, part: str, kernel_shape: tuple[int, ...]) -> np.ndarray:
    """A kernel [k, k, in, out] or a bias [out]; kernels keep the size of what goes in."""
    number = 1 + len(PARTS) * layer + PARTS.index(part)
    if part.endswith("bias"):
        return formula(kernel_shape[-1:], number)
    return 6.0 * formula(kernel_shape, number) / int(np.prod(kernel_shape[:-1])) ** 0.5


def summary(values: np.ndarray) -> dict:
    """The shape, the sum, the norm, and six of the numbers [2, H, W, C]."""
    flat = values.ravel()
    return {
        "shape": list(values.shape),
        "sum": float(flat.sum()),
        "norm": float(np.sqrt((flat**2).sum())),
        "values": [float(value) for value in flat[:: len(flat) // 6]],
    }


def constants(stack, shape: tuple[int, int, int]) -> dict:
    """What the stack makes of the images, and the norms of the gradients of half the sum of its squares.

    The norms are those of the images, and of the weights, layer by layer in the order of `PARTS`.
    """
    import torch

    x = torch.tensor(images(shape).transpose(0, 3, 1, 2), requires_grad=True)
    maps, variables, channels = x, [x], shape[-1]
    for layer, (filters, size, stride, padding) in enumerate(stack):
        kernel_shape = (size, size, channels, filters)
        both = []
        for part in PARTS:
            values = weights(layer, part, kernel_shape)
            if part.endswith("kernel"):
                values = values.transpose(3, 2, 0, 1)  # [out, in, k, k]
            both.append(torch.tensor(values, requires_grad=True))
        value, gate = (
            torch.nn.functional.conv2d(maps, kernel, bias, stride, padding)
            for kernel, bias in (both[:2], both[2:])
        )
        maps, channels = value * torch.sigmoid(gate), filters
        variables += both
    gradients = torch.autograd.grad(0.5 * (maps**2).sum(), variables)
    norms = [float(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    return summary(maps.detach().numpy().transpose(0, 2, 3, 1)) | {"gradient_norms": norms}


def main() -> None:
    found = {
        f"{name} {'x'.join(map(str, shape))}": constants(stack, shape)
        for name, stack in STACKS.items()
        for shape in SHAPES
    }
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
