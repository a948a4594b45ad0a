"""Exports a trained model as a TensorFlow SavedModel: functions that need only TensorFlow.

The prior is computed once, at the export, and stored. Seeds are arguments, so that the same seed
gives the same result in every process that loads the folder.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfvamp import files, seeds
from tfvamp.blocks import in_blocks, rows_of
from tfvamp.errors import FileError, RunError, UsageError
from tfvamp.evaluation.images import noise_of
from tfvamp.evaluation.importance import weight_parts
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.models import LatentVariableModel
from tfvamp.networks.images import unchecked
from tfvamp.runs import Run, as_run
from tfvamp.runs.folder import PACKAGES

LARGEST_ARRAY = 2**25  # values: 128 MiB of float32 for images asked for, or for the noise of one image
METADATA_FILE = pathlib.PurePath("assets.extra", "tfvamp.json")  # the folder that TensorFlow Serving ignores
ONNX_OPSET = 17
DEFAULT = "sample"  # the function that is `serving_default`
DESCRIPTIONS = {
    "sample": "n images generated from the prior: {picture} p(x | z), z ~ p(z)",
    "sample_component": "n images generated from component k of the prior alone, k from 0",
    "encode": "the posterior q(z | x) = N(loc, diag(exp(log_variance))) of each image",
    "decode": "{picture} p(x | z) at each latent",
    "reconstruct": "{picture} p(x | z) at one draw z ~ q(z | x) for each image",
    "log_likelihood": "log 1/S sum_s p(x, z_s) / q(z_s | x) of each image, in nats, S = num_samples",
    "pseudo_inputs": "the K images whose posteriors are the components of the prior",
}
SEEDS = (
    "Two int32. [s, 0] is what the integer s is in tfvamp: sample(n, [s, 0]) gives the images of model.sample(n, s), "
    "and log_likelihood(images, S, [s, 0]) the estimates of tfvamp evaluate --samples S --seed s when the "
    "images are those of the split, from the first on. The second number makes further streams."
)


def export_run(
    run: Run | str | os.PathLike, output_dir: str | os.PathLike, overwrite: bool = False, onnx: bool = False
) -> dict[str, Any]:
    """Writes the best epoch of a run as a SavedModel; the metadata describe the run.

    An evaluation of weights other than those exported is left out.

    Args:
      run: the run, or its folder.
      output_dir, overwrite, onnx: as in `export`.

    Raises:
      RunError, UsageError: as `load` and `export`.
    """
    run = as_run(run)
    _check_free(_absolute(output_dir), overwrite)
    model = run.model()
    result = run.evaluation()
    here = ("data_dir", "raw_dir")  # folders of this machine mean nothing elsewhere
    settings = {name: value for name, value in run.config.to_dict().items() if name not in here}
    metadata = {
        "settings": {**settings, "dataset": run.spec.name},
        "data": run.document.raw["data"],
        "weights": {"epoch": run.weights_epoch, "sha256": run.weights_sha256},
        "validation": _validation(run),
        "evaluation": result if result is not None and result.pop("current") else None,
        "trained_with": run.document.versions,
    }
    return export(model, output_dir, metadata, overwrite, onnx)


def _validation(run: Run) -> dict[str, Any] | None:
    """Returns the ELBO in nats on the validation images at the epoch of the weights; None if no row has it."""
    elbos = [row["val_elbo"] for row in run.rows() if row["epoch"] == run.weights_epoch]
    return {"epoch": run.weights_epoch, "elbo": elbos[0]} if elbos and math.isfinite(elbos[0]) else None


def export(
    model: LatentVariableModel,
    output_dir: str | os.PathLike,
    metadata: dict[str, Any] | None = None,
    overwrite: bool = False,
    onnx: bool = False,
) -> dict[str, Any]:
    """Writes a model as a SavedModel, completely or not at all.

    Args:
      model: any model with a `tfd` distribution for encoder, decoder and prior.
      output_dir: the folder, which is created.
      metadata: further objects for assets.extra/tfvamp.json.
      overwrite: whether to replace an existing SavedModel.
      onnx: whether to write assets.extra/encode.onnx, too, and assets.extra/decode.onnx for a model
        whose p(x | z) has a mean.

    Returns:
      the contents of assets.extra/tfvamp.json.

    Raises:
      RunError: the folder exists, and `overwrite` is not set or the folder is not a SavedModel; or
        it cannot be written.
      UsageError: `onnx` is set, but tf2onnx is not installed.
    """
    if not isinstance(model, LatentVariableModel):
        raise UsageError(
            f"tfvamp exports the models of tfvamp.models; got a {type(model).__name__}: Keras exports a model of your "
            "own, model.export(folder), and a method sample() under tf.function goes with it"
        )
    output = _absolute(output_dir)
    _check_free(output, overwrite)
    if onnx:
        _import_tf2onnx()
    functions = Functions(model)
    module = _module(functions)
    document = {
        **(metadata or {}),
        "signatures": {},
        "limits": functions.limits,
        "seeds": SEEDS,
        "exported_with": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }

    def fill(folder: pathlib.Path) -> None:
        signatures = {name: getattr(module, name) for name in functions.signatures}
        tf.saved_model.save(module, str(folder), {**signatures, "serving_default": signatures[DEFAULT]})
        document["signatures"] = _describe(
            functions
        )  # now that they are traced; TensorFlow would do it again
        files.write_json(folder / METADATA_FILE, document)
        if onnx:
            _write_onnx(functions, folder / METADATA_FILE.parent)

    try:
        files.replace_folder(output, fill)
    except (OSError, FileError, tf.errors.OpError) as error:
        why = files.reason(error)
        raise RunError(f"cannot write {files.shown(output_dir)} ({why}): choose another --output") from error
    return document


def saved_model(model: LatentVariableModel) -> tf.Module:
    """Returns the module that `export` writes, with the functions and the weights of encoder and decoder.

    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(6, 5, 1), latent_dims=2, prior="standard")
    >>> module = saved_model(model)  # tf.saved_model.save(module, "folder") writes it
    >>> module.sample(3, [7, 0])["images"].shape
    TensorShape([3, 6, 5, 1])
    """
    return _module(Functions(model))


class Functions:
    """The functions of a SavedModel, from tensors to named tensors; bad input raises InvalidArgumentError.

    It is not a `tf.Module`, so that neither Keras objects nor distributions become part of the
    SavedModel.

    Args:
      model: any model with a `tfd` distribution for encoder, decoder and prior.

    Attributes:
      signatures: the arguments of each function, as `tf.TensorSpec`.
      limits: the largest `n` and `num_samples`.
      outputs: the outputs of each function that was traced, with dtypes and shapes (None: any
        size).
    """

    def __init__(self, model: LatentVariableModel):
        self.model = model
        self.event_shape, self.rows = tuple(model.event_shape), rows_of(model, model.event_shape)
        self.prior = model.prior()  # only tensors from here on
        latent_dims = self.prior.event_shape[0]
        self.limits = {
            "n": LARGEST_ARRAY // math.prod(self.event_shape),
            "num_samples": LARGEST_ARRAY // latent_dims,
        }
        self.outputs: dict[str, dict[str, Any]] = {}
        n, k, num_samples = (tf.TensorSpec([], tf.int32, name) for name in ("n", "k", "num_samples"))
        seed = tf.TensorSpec([2], tf.int32, "seed")
        images = tf.TensorSpec([None, *self.event_shape], tf.float32, "images")
        latents = tf.TensorSpec([None, latent_dims], tf.float32, "latents")
        of_mixture = {"sample_component": [k, n, seed]} if model.prior.is_mixture() else {}
        self.signatures = {
            "sample": [n, seed],
            **of_mixture,
            "encode": [images],
            "decode": [latents],
            "reconstruct": [images, seed],
            "log_likelihood": [images, num_samples, seed],
        }
        self.clipped_pseudo_inputs = model.prior.clipped_pseudo_inputs()
        if self.clipped_pseudo_inputs is not None:
            self.signatures["pseudo_inputs"] = []

    def sample(self, n, seed):
        n = self._checked_n(n)
        return self._images(self.prior.sample(n, seed=seeds.fold_in_name(seed, "latents")), seed)

    def sample_component(self, k, n, seed):
        count = self.prior.num_components
        k = _checked(k, (k >= 0) & (k < count), f"k must lie between 0 and {count - 1}")
        n = self._checked_n(n)
        latents = self.prior.sample_component(k, n, seeds.fold_in_name(seed, "latents"))
        return self._images(latents, seed)

    def encode(self, images):
        return self.unchecked_encode(_checked_images(images))

    def unchecked_encode(self, images):
        posterior = self._posterior(images)
        return {"loc": posterior.loc, "log_variance": posterior.log_variance}

    def decode(self, latents):
        finite = tf.reduce_all(tf.math.is_finite(latents))
        return self.unchecked_decode(_checked(latents, finite, "latents must be finite", show=False))

    def unchecked_decode(self, latents):
        return {"images": self.model.pictures(self.model.generate(latents), seeds.stateless(0))}

    def reconstruct(self, images, seed):
        likelihood = self.model.reconstruct(_checked_images(images), seed)
        return {"images": self.model.pictures(likelihood, seed)}

    def log_likelihood(self, images, num_samples, seed):
        """Estimates as `tfvamp.log_likelihood` does, adding in float64; `rows` latents at a time, never [S, K, D]."""
        limit = self.limits["num_samples"]
        fits = (num_samples >= 1) & (num_samples <= limit)
        num_samples = _checked(num_samples, fits, f"num_samples must lie between 1 and {limit}")
        images = _checked_images(images)
        base = tf.bitwise.bitwise_xor(
            seed, seeds.stateless(0, "evaluate")
        )  # [s, 0] -> stateless(s, "evaluate")

        def of_block(start, stop):
            indices = tf.range(start, stop)
            dims, dtype = self.prior.event_shape[0], self.prior.dtype
            noise = noise_of(base, indices, num_samples, dims, self.model.levels, dtype)
            return self._log_likelihood(images[start:stop], noise)

        block = tf.maximum(1, self.rows // num_samples)
        return {"log_likelihood": in_blocks(of_block, tf.shape(images)[0], block, [None])}

    def _log_likelihood(self, images, noise):
        """Estimates [B] from noise [S, B, D] for each layer, by a running logsumexp over blocks of samples."""
        posterior, generator = self._posterior(images), self.model.generator(self.prior)
        num_samples, block = tf.shape(noise[0])[0], tf.maximum(1, self.rows // tf.shape(images)[0])

        def body(start, total):
            draws = [of_layer[start : start + block] for of_layer in noise]
            parts = tf.cast(weight_parts(posterior, generator, images, draws), tf.float64)
            log_weights = parts[0] - tf.reduce_sum(parts[1:], axis=0)  # [S, B]
            return start + block, tf.reduce_logsumexp(tf.concat([total[None], log_weights], axis=0), axis=0)

        start = (tf.constant(0), tf.fill([tf.shape(images)[0]], tf.constant(-math.inf, tf.float64)))
        _, total = tf.while_loop(lambda first, _: first < num_samples, body, start, parallel_iterations=1)
        return tf.cast(total - tf.math.log(tf.cast(num_samples, tf.float64)), tf.float32)

    def pseudo_inputs(self):
        return {"images": tf.identity(self.clipped_pseudo_inputs)}

    def _posterior(self, images) -> DiagonalGaussian:
        return as_diagonal_gaussian(self.model.encoder(images, training=False))

    def _images(self, latents, seed):
        return {"images": self.model.generate_images(latents, seed)}

    def _checked_n(self, n):
        limit = self.limits["n"]
        return _checked(n, (n >= 1) & (n <= limit), f"n must lie between 1 and {limit}")


def _checked(value: tf.Tensor, condition: tf.Tensor, text: str, show: bool = True) -> tf.Tensor:
    """Returns the value after checking the condition; if it does not hold, raises the text, and the value if `show`."""
    with tf.control_dependencies(
        [tf.debugging.Assert(condition, [f"{text}; got", value] if show else [text])]
    ):
        return tf.identity(value)


def _checked_images(images: tf.Tensor) -> tf.Tensor:
    inside = tf.reduce_all((images >= 0.0) & (images <= 1.0))  # false for NaN
    return _checked(images, inside, "images must lie between 0 and 1, without NaN", show=False)


def _module(functions: Functions) -> tf.Module:
    module = tf.Module()
    layers = [layer for layer in functions.model.layers if layer is not functions.model.prior]
    module.weights = [variable.value for layer in layers for variable in layer.variables]
    for name, arguments in functions.signatures.items():
        function = _with_shapes(functions, name)
        setattr(module, name, tf.function(function, input_signature=arguments, autograph=False))
    return module


def _with_shapes(functions: Functions, name: str) -> Callable:
    """Returns the function with a check of its arguments' shapes: nothing else checks them in a signature."""
    function, arguments = getattr(functions, name), functions.signatures[name]

    @functools.wraps(function)
    def checked(*args):
        shaped = [
            tf.ensure_shape(value, spec.shape, name=spec.name)
            for value, spec in zip(args, arguments, strict=True)
        ]
        with unchecked():  # the functions check their arguments themselves
            outputs = {key: tf.cast(tensor, tf.float32) for key, tensor in function(*shaped).items()}
        functions.outputs[name] = {key: _shape(tensor) for key, tensor in outputs.items()}
        return outputs

    return checked


def _describe(functions: Functions) -> dict[str, Any]:
    """Describes each function that was traced: what it does, takes and returns, with dtypes and shapes (None: any size)."""
    picture = "the mean of" if functions.model.has_mean else "a draw from"
    return {
        name: {
            "description": DESCRIPTIONS[name].format(picture=picture),
            "inputs": {spec.name: _shape(spec) for spec in arguments},
            "outputs": functions.outputs[name],
        }
        for name, arguments in functions.signatures.items()
    }


def _shape(spec: tf.TensorSpec | tf.Tensor) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _import_tf2onnx():
    try:
        import tf2onnx
    except ImportError as error:
        raise UsageError("--onnx needs tf2onnx: pip install 'tfvamp[onnx]'") from error
    return tf2onnx


def _write_onnx(functions: Functions, folder: pathlib.Path) -> None:
    """Writes encode.onnx and decode.onnx. ONNX cannot express the checks, nor draw pixels in turn."""
    tf2onnx = _import_tf2onnx()
    for name in ("encode", "decode") if functions.model.has_mean else ("encode",):
        arguments = functions.signatures[name]
        function = tf.function(
            getattr(functions, f"unchecked_{name}"), input_signature=arguments, autograph=False
        )
        with unchecked():
            tf2onnx.convert.from_function(
                function, arguments, opset=ONNX_OPSET, output_path=str(folder / f"{name}.onnx")
            )


def _absolute(path: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(os.path.abspath(files.expanded(path)))


def _check_free(output: pathlib.Path, overwrite: bool) -> None:
    """Raises RunError unless an export may be written here."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "saved_model.pb").is_file():
        raise RunError(f"{output} exists and is not a SavedModel: choose another --output")
    if not overwrite:
        raise RunError(f"{output} exists: choose another --output, or replace it with --overwrite")
