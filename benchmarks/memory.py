"""Memory while many images train: 200,000 generated pictures of 64x64 in a folder, read once, then two epochs."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time

import click
import numpy as np
from PIL import Image


def make_pictures(folder: pathlib.Path, count: int) -> None:
    """Grey PNG files in folders of a thousand: a disc on noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04d}").mkdir(parents=True)
        centre, radius = rng.integers(8, 56, 2), rng.integers(4, 24)
        disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        pixels = (rng.integers(0, 64, (64, 64)) + 160 * disc).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number // 1000:04d}" / f"{number}.png", compress_level=1)


def resident(pid: int) -> float | None:
    """What a process holds in memory, in MiB; None when it is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return found[0] / 1024 if found else None


@click.command()
@click.option("--images", default=200_000, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Between two readings.")
def main(images, seconds):
    """Prints the memory of `tfvamp train` as time goes on."""
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        make_pictures(root / "pictures", images)
        command = [
            sys.executable,
            "-m",
            "tfvamp_cli.main",
            "train",
            "--dataset",
            f"folder:{root / 'pictures'}",
        ]
        command += ["--image-size", "64x64", "--grayscale", "--components", "50"]
        command += [
            "--epochs",
            "2",
            "--warmup",
            "1",
            "--data-dir",
            str(root / "data"),
            "--run-dir",
            str(root / "run"),
        ]
        print(f"{images} files; reading and training", flush=True)
        start = time.perf_counter()
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                held = resident(process.pid)
                if held is not None:
                    print(f"  {time.perf_counter() - start:6.0f} s  {held:7.0f} MiB", flush=True)
                time.sleep(seconds)
        print((root / "run" / "history.csv").read_text())


if __name__ == "__main__":
    main()
