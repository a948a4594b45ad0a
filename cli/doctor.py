"""tfvamp doctor."""

from __future__ import annotations

import os
import platform

import click


@click.command("doctor")
def command():
    """Show versions, devices and data folders."""
    import importlib.metadata

    import keras
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from tfvamp.datasets.mnist5k import mnist5k_dataset_builder
    from tfvamp.datasets.sources import RAW_DIR_VARIABLE
    from tfvamp.errors import DataError
    from tfvamp.runs.folder import PACKAGES
    from tfvamp_cli import output

    gpus = tf.config.list_physical_devices("GPU")
    try:
        mnist5k = str(mnist5k_dataset_builder.find_file())
    except DataError as error:
        mnist5k = str(error)
    data_dir = os.environ.get("TFDS_DATA_DIR", tfds.core.constants.DATA_DIR)
    rows = {"python": platform.python_version()}
    rows |= {name: importlib.metadata.version(name) for name in PACKAGES}
    rows |= {
        "Keras backend": keras.backend.backend(),
        "devices": ", ".join(
            f"{device.name} ({device.device_type})" for device in tf.config.list_physical_devices()
        ),
        "used for training": gpus[0].name if gpus else f"CPU, {os.cpu_count()} cores",
        "prepared data": f"{data_dir}{'' if os.path.isdir(data_dir) else ' (not there yet)'}",
        "raw data": os.environ.get(RAW_DIR_VARIABLE, f"{RAW_DIR_VARIABLE} is not set"),
        "mnist5k": mnist5k,
    }
    output.table("tfvamp doctor", rows)
    click.echo("Next: tfvamp train --help")
