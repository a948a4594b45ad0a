"""What share of an epoch is not a train step: validation, and what is saved; on the 5,000 digits."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time

import click

EPOCHS = 12
FIRST = 2  # epochs that do not count: they compile


@click.command()
@click.option("--model", default="vae", show_default=True)
def main(model):
    """Prints seconds per epoch, and the shares of its parts."""
    import tfvamp
    from tfvamp.training import epoch, loop

    epochs: list[tuple[float, int]] = []  # seconds of all steps, and their number
    ends: list[float] = []
    real_epoch, real_progress = epoch.epoch_of, loop.Progress.epoch

    def timed_epoch(number, config, model, steps, *rest):
        def timed(batches):
            seconds, count, start = 0.0, 0, time.perf_counter()
            for taken in steps(batches):
                float(taken.results["loss"])
                seconds, count = seconds + time.perf_counter() - start, count + taken.steps
                yield taken
                start = time.perf_counter()
            epochs.append((seconds, count))

        return real_epoch(number, config, model, timed, *rest)

    def ended(self, *arguments):
        ends.append(time.perf_counter())
        real_progress(self, *arguments)

    loop.epoch_of, loop.Progress.epoch = timed_epoch, ended
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        config = tfvamp.TrainConfig(
            dataset="mnist5k",
            model=model,
            components=500,
            epochs=EPOCHS,
            data_dir=str(pathlib.Path(folder) / "data"),
        )
        tfvamp.train(config, run)
        rows = tfvamp.Run(run).rows()
    whole = statistics.median(b - a for a, b in zip(ends[FIRST - 1 :], ends[FIRST:], strict=False))
    in_steps = statistics.median(seconds for seconds, _ in epochs[FIRST:])
    in_epoch = statistics.median(row["seconds"] for row in rows[FIRST:])
    print(f"{model}: an epoch of {epochs[0][1]} steps takes {1000 * whole:.0f} ms")
    for name, seconds in (
        ("train steps, with their data", in_steps),
        ("validation", in_epoch - in_steps),
        ("weights, checkpoint, history, TensorBoard", whole - in_epoch),
    ):
        print(f"  {name:<42} {1000 * seconds:6.0f} ms  {100 * seconds / whole:4.0f} %")


if __name__ == "__main__":
    main()
