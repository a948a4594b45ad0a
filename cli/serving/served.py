"""The model of an export: its functions on the contents of a REST request, after a check of the cost."""

from __future__ import annotations

import functools
import math
import pathlib
import re
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from tfvamp_cli import light
from tfvamp_cli.serving.exports import newest_version
from tfvamp_cli.serving.limits import Limits, Refused

METADATA_FILE = pathlib.PurePath("assets.extra", "tfvamp.json")
DEFAULT = "serving_default"
PER_PART = 2**14  # values that become JSON at a time
PER_BLOCK = 256  # pseudo-inputs that are encoded and decoded at a time, for the page


class ServedModel:
    """The functions of a SavedModel.

    Args:
      folder: a SavedModel, or a folder of numbered ones, of which the highest is used.
      limits: the maximum cost of a request.

    Attributes:
      folder, version: folder and version of the SavedModel.
      about: what the export says about the model, for the page; None if it says nothing.
      problem: why it says nothing, in one line; empty if it says something.

    Raises:
      UsageError: there is no SavedModel.
      FileError: it cannot be read.
    """

    def __init__(self, folder: pathlib.Path, limits: Limits):
        self.folder, self.version = newest_version(folder)
        self.limits = limits
        try:
            self._loaded = tf.saved_model.load(str(self.folder))  # its variables live as long as it does
        except Exception as error:  # a damaged file may lead to any error
            raise light.errors.FileError(
                f"{light.files.shown(self.folder)} is not a SavedModel that can be read "
                f"({light.files.reason(error)}): export the run again"
            ) from error
        self.signatures = {
            name: signature
            for name, signature in self._loaded.signatures.items()
            if not name.startswith("__")
        }
        self.about, self.problem = _about(self.folder)

    def answer(self, body: bytes) -> bytes:
        """Returns the answer to the body of a predict request, both JSON.

        Raises:
          Refused: the body is not a request, or costs too much.
        """
        try:
            request = orjson.loads(body)
        except ValueError:
            raise Refused(
                400,
                "the body is not JSON that is read here: UTF-8, finite numbers, at most 1000 brackets deep",
            ) from None
        return _json(self.predict(request))

    def predict(self, request: Any) -> dict[str, Any]:
        """Returns the answer to a predict request, in its format: columns or rows."""
        if not isinstance(request, dict) or ("inputs" in request) == ("instances" in request):
            raise Refused(
                400, 'the body must be an object with "inputs" (columns) or "instances" (rows), not with both'
            )
        if unknown := set(request) - {"signature_name", "inputs", "instances"}:
            raise Refused(400, f"the body has an unknown key {_short(sorted(unknown)[0])}")
        name = request.get("signature_name", DEFAULT)
        if not isinstance(name, str):
            raise Refused(400, "signature_name must be a string")
        specs = self.specs(name)
        in_rows = "instances" in request
        given = _columns(request["instances"], specs) if in_rows else request["inputs"]
        if len(specs) == 1 and not isinstance(given, dict):
            given = {next(iter(specs)): given}  # one input needs no name
        outputs = self.call(name, given)
        if not in_rows:
            return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
        if len(outputs) == 1:
            return {"predictions": next(iter(outputs.values()))}
        rows = zip(*outputs.values(), strict=True)
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}

    def call(self, name: str, given: Any) -> dict[str, np.ndarray]:
        """Runs a signature on values from JSON, checked against its arguments and the limits."""
        specs = self.specs(name)
        if not isinstance(given, dict):
            what = f"an object with {', '.join(specs)}" if specs else "an empty object, {}"
            raise Refused(400, f"inputs of {name} must be {what}")
        if missing := set(specs) - set(given):
            raise Refused(400, f"the input {sorted(missing)[0]!r} of {name} is missing")
        if unknown := set(given) - set(specs):
            known = ", ".join(specs) or "none"
            raise Refused(400, f"{name} has no input {_short(sorted(unknown)[0])}: it has {known}")
        arrays = {key: _array(key, given[key], spec) for key, spec in specs.items()}
        self._check_cost(name, specs, arrays)
        tensors = {key: tf.constant(array, specs[key].dtype) for key, array in arrays.items()}
        try:
            return {key: value.numpy() for key, value in self.signatures[name](**tensors).items()}
        except tf.errors.InvalidArgumentError as error:
            raise Refused(400, _said(error)) from error
        except tf.errors.ResourceExhaustedError as error:
            raise Refused(400, "not enough memory for this request: ask for less") from error

    def _check_cost(self, name: str, specs: dict[str, tf.TensorSpec], arrays: dict[str, np.ndarray]) -> None:
        """Raises Refused if a request asks for more than the limits allow."""
        rows = max(
            (len(arrays[key]) for key, spec in specs.items() if _has_batch(spec)),
            default=1,
        )
        if rows > self.limits.max_images:
            raise Refused(400, f"at most {self.limits.max_images} rows are taken at a time; got {rows}")
        if "n" in arrays:
            rows = int(arrays["n"])
            if not 1 <= rows <= self.limits.max_images:
                raise Refused(400, f"n must lie between 1 and {self.limits.max_images}; got {rows}")
        if "num_samples" in arrays and rows * int(arrays["num_samples"]) > self.limits.max_draws:
            raise Refused(
                400,
                f"images times num_samples must be at most {self.limits.max_draws}; got {rows} times "
                f"{int(arrays['num_samples'])}",
            )
        values = sum(
            math.prod(rows if size is None else size for size in output.shape)
            for output in self.signatures[name].structured_outputs.values()
        )
        if values > self.limits.max_values:
            raise Refused(
                400,
                f"the answer would have {values} values; at most {self.limits.max_values} are given: ask for fewer "
                "images",
            )

    def specs(self, name: str) -> dict[str, tf.TensorSpec]:
        """Returns the arguments of a signature by name."""
        if name not in self.signatures:
            raise Refused(
                404, f"there is no signature {_short(name)}: choose one of {', '.join(self.signatures)}"
            )
        return self.signatures[name].structured_input_signature[1]

    def metadata(self) -> dict[str, Any]:
        """Returns the arguments and results of each signature, in the form of TensorFlow Serving."""
        return {
            name: {
                "inputs": _described(name, self.specs(name)),
                "outputs": _described("StatefulPartitionedCall", signature.structured_outputs),
                "method_name": "tensorflow/serving/predict",
            }
            for name, signature in self.signatures.items()
        }

    @property
    def sizes(self) -> dict[str, Any]:
        """The shape [H, W, C] of an image, and the number of latents."""
        decode = self.signatures["decode"]
        return {
            "event_shape": decode.structured_outputs["images"].shape[1:].as_list(),
            "latent_dims": decode.structured_input_signature[1]["latents"].shape[1],
        }

    @functools.cached_property
    def _components(self) -> dict[str, np.ndarray]:
        """The pseudo-inputs [K, H, W, C], the posteriors [K, D] at them, and the means of p(x | z) at the posteriors' means."""
        if "pseudo_inputs" not in self.signatures:
            raise Refused(404, "the prior of this model has no pseudo-inputs")
        images = self.signatures["pseudo_inputs"]()["images"]
        found: dict[str, list[np.ndarray]] = {"loc": [], "log_variance": [], "generated": []}
        for start in range(0, images.shape[0], PER_BLOCK):
            posterior = self.signatures["encode"](images=images[start : start + PER_BLOCK])
            decoded = self.signatures["decode"](latents=posterior["loc"])
            for name, value in (posterior | {"generated": decoded["images"]}).items():
                found[name].append(value.numpy())
        return {
            "images": images.numpy(),
            **{name: np.concatenate(blocks) for name, blocks in found.items()},
        }

    def posteriors(self) -> bytes:
        """Returns the posteriors [K, D] at all pseudo-inputs, as JSON."""
        return _json({name: self._components[name] for name in ("loc", "log_variance")})

    def pictures(self, first: int, count: int) -> bytes:
        """Returns some pseudo-inputs, and what they generate, as JSON."""
        part = slice(first, first + count)
        return _json({name: self._components[name][part] for name in ("images", "generated")})


def _about(folder: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """Returns what assets.extra/tfvamp.json says about the model, in short texts and finite numbers, and what is wrong."""
    try:
        document = light.files.read_json(folder / METADATA_FILE)
    except light.errors.FileError as error:
        return None, f"{error}: the page cannot say what the model is"
    settings, validation, evaluation = (
        part if isinstance(part, dict) else {}
        for part in (document.get("settings"), document.get("validation"), document.get("evaluation"))
    )
    found = {
        "dataset": settings.get("dataset"),
        "model": settings.get("model"),
        "prior": settings.get("prior"),
        "likelihood": settings.get("likelihood"),
        "background": settings.get("background"),
        "epoch": validation.get("epoch"),
        "validation_elbo": validation.get("elbo"),
        "log_likelihood": evaluation.get("log_likelihood"),
        "estimator": evaluation.get("estimator"),
        "proposal": evaluation.get("proposal"),
        "num_samples": evaluation.get("num_samples"),
        "split": evaluation.get("split"),
        "num_examples": evaluation.get("num_examples"),
    }
    told = {
        name: light.files.printable(value)[:100] if isinstance(value, str) else value
        for name, value in found.items()
        if isinstance(value, (str, int, float))
    }
    return told, ""


def _json(document: dict[str, Any]) -> bytes:
    """Returns JSON of arrays and numbers; what is not finite becomes null."""
    return orjson.dumps(_in_parts(document), option=orjson.OPT_SERIALIZE_NUMPY)


def _in_parts(value: Any) -> Any:
    """Returns the same JSON, with large arrays made in blocks of rows, so that other threads get a turn in between."""
    if isinstance(value, dict):
        return {key: _in_parts(one) for key, one in value.items()}
    if not isinstance(value, np.ndarray) or value.size <= PER_PART:
        return value
    rows = max(1, PER_PART * len(value) // value.size)
    parts = [
        orjson.dumps(np.ascontiguousarray(value[start : start + rows]), option=orjson.OPT_SERIALIZE_NUMPY)
        for start in range(0, len(value), rows)
    ]
    return orjson.Fragment(b"[" + b",".join(part[1:-1] for part in parts) + b"]")


def _has_batch(spec: tf.TensorSpec) -> bool:
    return bool(spec.shape.rank) and spec.shape[0] is None


def _described(prefix: str, specs: dict[str, tf.TensorSpec]) -> dict[str, Any]:
    return {
        key: {
            "dtype": f"DT_{spec.dtype.name.upper().replace('FLOAT32', 'FLOAT')}",
            "tensor_shape": {
                "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape],
                "unknown_rank": False,
            },
            "name": f"{prefix}_{key}:0",
        }
        for key, spec in specs.items()
    }


def _short(text: str) -> str:
    return repr(light.files.printable(text)[:60])


def _said(error: tf.errors.OpError) -> str:
    """Returns the text of a check in the model, or of TensorFlow, in one line."""
    said = re.search(r"assertion failed: (.*)", error.message)
    text = said.group(1).replace("[", "").replace("]", "") if said else error.message
    return light.files.printable(text)[:300]


def _columns(instances: Any, specs: dict[str, tf.TensorSpec]) -> dict[str, list]:
    """Returns rows as columns; only arguments with a batch can be given in rows."""
    if scalars := [key for key, spec in specs.items() if not _has_batch(spec)]:
        raise Refused(400, f'{scalars[0]!r} has no batch: use "inputs" (columns) instead of "instances"')
    if not isinstance(instances, list) or not instances:
        raise Refused(400, "instances must be a list that is not empty")
    if len(specs) == 1 and not isinstance(instances[0], dict):
        return {next(iter(specs)): instances}
    keys = instances[0].keys() if isinstance(instances[0], dict) else ()
    if not all(isinstance(row, dict) and row.keys() == keys for row in instances):
        raise Refused(400, "all instances must be objects with the same keys")
    return {key: [row[key] for row in instances] for key in keys}


def _array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """Returns a JSON value as an array that a signature takes."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refused(400, f"{name} must be an array with rows of one length") from None
    if array.dtype.kind not in "iuf":
        raise Refused(400, f"{name} must be an array of numbers with rows of one length")
    if spec.dtype.is_integer:
        low, high = spec.dtype.min, spec.dtype.max
        if array.dtype.kind == "f" or array.min(initial=0) < low or array.max(initial=0) > high:
            raise Refused(400, f"{name} must be {spec.dtype.name}")
    elif not (np.abs(array) <= spec.dtype.max).all():
        raise Refused(400, f"{name} must be finite in {spec.dtype.name}")
    if not spec.shape.is_compatible_with(array.shape) or 0 in array.shape:
        expected = ", ".join("B" if size is None else str(size) for size in spec.shape)
        raise Refused(400, f"{name} must have shape [{expected}]; got {list(array.shape)}")
    return array
