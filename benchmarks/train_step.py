"""A train step with a VampPrior (K = 500, batch 100): tfvamp; pythae or plain PyTorch; the bare matrix products."""

from __future__ import annotations

import click
from harness import PEER_PYTHON, Worker, interleave, report


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of few steps, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios; keeps them in docs/performance.json and docs/performance.md."""
    rounds, repeat = (2, 5) if quick else (5, 40)
    ours, numpy = Worker("tfvamp", "worker_tfvamp.py"), Worker("numpy", "worker_numpy.py")
    peer = Worker("pythae", "worker_pythae.py", PEER_PYTHON)
    step, bare = (
        {"name": "train_step", "repeat": repeat},
        {"name": "bare", "shapes": "train_step", "repeat": repeat},
    )
    entries = [
        ("tfvamp", ours, step),
        ("pythae VAMP", peer, step),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Train step",
        interleave(entries, rounds),
        "tfvamp",
        rounds,
        "a step of 100 images, K = 500",
        keep=not quick,
    )
    step, bare = {**step, "model": "hvae"}, {**bare, "shapes": "hvae_train_step"}
    entries = [
        ("tfvamp, HVAE", ours, step),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Train step of the HVAE",
        interleave(entries, rounds),
        "tfvamp, HVAE",
        rounds,
        "a step of 100 images, K = 500",
        keep=not quick,
    )
    torch = Worker("torch", "worker_torch.py", PEER_PYTHON)
    rounds, repeat = (2, 2) if quick else (5, 4)
    for model, name in (("convhvae", "convHVAE"), ("pixelhvae", "PixelHVAE")):
        step = {"name": "train_step", "repeat": repeat, "model": model}
        entries = [
            (f"tfvamp, {name}", ours, {**step, "jit": False}),
            (f"tfvamp, {name}, XLA", ours, {**step, "jit": True}),
            ("the same networks in PyTorch", torch, step),
        ]
        report(
            f"Train step of the {name}",
            interleave(entries, rounds),
            f"tfvamp, {name}",
            rounds,
            "a step of 100 images, K = 500",
            keep=not quick,
        )


if __name__ == "__main__":
    main()
