"""Serves an exported model over HTTP, as TensorFlow Serving's REST interface does, with a page to explore it.

    python examples/serve.py export/digits --port 8501

It needs tensorflow, fastapi and uvicorn, and neither tfvamp nor Keras. DIR is a SavedModel, or holds numbered
versions (DIR/1, DIR/2), of which the highest is served. See examples/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import math
import pathlib
import re
from typing import Any

import fastapi
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi.responses import FileResponse, JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

PAGE = pathlib.Path(__file__).with_name("explore.html")
MAX_BODY = 8 * 2**20  # bytes
MAX_DRAWS = 200_000  # latents of a request for log-likelihoods: images times samples
WORKERS = 2  # requests that are computed at a time
MAX_WAITING = 32  # requests that may wait for a worker
MAX_CONNECTIONS = 256  # below the number of files that a process may open
PATIENCE = 15.0  # seconds in which a client must send its request


class Refused(Exception):
    """A request that cannot be answered: a status and one line."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Model:
    """The signatures of a SavedModel, called with what a REST request holds.

    Args:
      folder: a SavedModel, or a folder of numbered ones.
      max_images: the largest `n` of a request, below the model's own limit.
      max_draws: the largest number of images times samples of a request for log-likelihoods.
    """

    def __init__(self, folder: pathlib.Path, max_images: int = 1024, max_draws: int = MAX_DRAWS):
        self.folder, self.version = newest_version(folder)
        self.loaded = tf.saved_model.load(str(self.folder))
        self.signatures = {
            name: signature for name, signature in self.loaded.signatures.items() if not name.startswith("__")
        }
        self.max_images, self.max_draws = max_images, max_draws

    def specs(self, name: str) -> dict[str, tf.TensorSpec]:
        """The arguments of a signature by name."""
        if name not in self.signatures:
            raise Refused(404, f"there is no signature {name!r}: choose one of {', '.join(self.signatures)}")
        return self.signatures[name].structured_input_signature[1]

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to the body of a predict request, in its format: columns or rows."""
        if not isinstance(body, dict) or ("inputs" in body) == ("instances" in body):
            raise Refused(400, 'the body must be an object with "inputs" (columns) or "instances" (rows)')
        if unknown := set(body) - {"signature_name", "inputs", "instances"}:
            raise Refused(400, f"the body has an unknown key {sorted(unknown)[0]!r}")
        name = body.get("signature_name", "serving_default")
        if not isinstance(name, str):
            raise Refused(400, "signature_name must be a string")
        specs = self.specs(name)
        in_rows = "instances" in body
        given = columns(body["instances"], specs) if in_rows else body["inputs"]
        if len(specs) == 1 and not isinstance(given, dict):
            given = {next(iter(specs)): given}  # one input needs no name
        outputs = self.call(name, specs, given)
        lists = {key: value.numpy().tolist() for key, value in outputs.items()}
        if not in_rows:
            return {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))}
        if len(lists) == 1:
            return {"predictions": next(iter(lists.values()))}
        return {
            "predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        }

    def call(self, name: str, specs: dict[str, tf.TensorSpec], given: Any) -> dict[str, tf.Tensor]:
        """Runs a signature on JSON values, checked against its arguments."""
        if not isinstance(given, dict):
            raise Refused(400, f"inputs must be an object with {', '.join(specs) or 'nothing'}")
        if missing := set(specs) - set(given):
            raise Refused(400, f"the input {sorted(missing)[0]!r} of {name} is missing")
        if unknown := set(given) - set(specs):
            raise Refused(
                400, f"{name} has no input {sorted(unknown)[0]!r}: it has {', '.join(specs) or 'none'}"
            )
        tensors = {key: tensor(key, given[key], spec) for key, spec in specs.items()}
        images = max(
            (tensors[key].shape[0] for key in specs if specs[key].shape.rank and specs[key].shape[0] is None),
            default=1,
        )
        if images > self.max_images:
            raise Refused(400, f"at most {self.max_images} rows are taken at a time; got {images}")
        if "num_samples" in tensors and images * int(tensors["num_samples"]) > self.max_draws:
            raise Refused(
                400,
                f"images times num_samples must be at most {self.max_draws}; got {images} times "
                f"{int(tensors['num_samples'])}",
            )
        if "n" in tensors and not 1 <= int(tensors["n"]) <= self.max_images:
            raise Refused(400, f"n must lie between 1 and {self.max_images}; got {int(tensors['n'])}")
        try:
            return self.signatures[name](**tensors)
        except tf.errors.InvalidArgumentError as error:
            said = re.search(r"assertion failed: (.*)", error.message)  # the model's own checks
            text = (
                said.group(1).replace("[", "").replace("]", "") if said else " ".join(error.message.split())
            )
            raise Refused(400, text[:300]) from error
        except tf.errors.ResourceExhaustedError as error:
            raise Refused(400, "not enough memory for this request: ask for less") from error

    def metadata(self) -> dict[str, Any]:
        """What each signature takes and gives."""
        return {
            name: {
                "inputs": {key: describe(spec) for key, spec in self.specs(name).items()},
                "outputs": {key: describe(spec) for key, spec in signature.structured_outputs.items()},
            }
            for name, signature in self.signatures.items()
        }


def newest_version(folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The SavedModel to serve, and its version."""
    if (folder / "saved_model.pb").is_file():
        return folder, folder.name if folder.name.isdigit() else "1"
    versions = [
        path for path in folder.glob("*/") if path.name.isdigit() and (path / "saved_model.pb").is_file()
    ]
    if not versions:
        raise SystemExit(
            f"{folder} is not a SavedModel and contains none: write one with tfvamp export RUN --output DIR"
        )
    newest = max(versions, key=lambda path: int(path.name))
    return newest, newest.name


def describe(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def columns(instances: Any, specs: dict[str, tf.TensorSpec]) -> dict[str, list]:
    """Rows as columns; only arguments with a batch can be given in rows."""
    if scalars := [key for key, spec in specs.items() if not spec.shape.rank or spec.shape[0] is not None]:
        raise Refused(400, f'{scalars[0]!r} has no batch: use "inputs" (columns) instead of "instances"')
    if not isinstance(instances, list) or not instances:
        raise Refused(400, "instances must be a list that is not empty")
    if len(specs) == 1 and not isinstance(instances[0], dict):
        return {next(iter(specs)): instances}
    keys = instances[0].keys() if isinstance(instances[0], dict) else ()
    if not all(isinstance(row, dict) and row.keys() == keys for row in instances):
        raise Refused(400, "all instances must be objects with the same keys")
    return {key: [row[key] for row in instances] for key in keys}


def tensor(name: str, value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    """A JSON value as the tensor that a signature takes."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise Refused(400, f"{name} must be an array with rows of one length") from None
    if array.dtype.kind not in "if":
        raise Refused(400, f"{name} must be an array of numbers with rows of one length")
    if spec.dtype.is_integer:
        low, high = spec.dtype.min, spec.dtype.max
        if array.dtype.kind != "i" or array.min(initial=0) < low or array.max(initial=0) > high:
            raise Refused(400, f"{name} must be {spec.dtype.name}")
    elif not np.isfinite(array).all():
        raise Refused(400, f"{name} must be finite")
    if not spec.shape.is_compatible_with(array.shape) or 0 in array.shape:
        expected = ["B" if size is None else size for size in spec.shape]
        raise Refused(400, f"{name} must have shape {expected}; got {list(array.shape)}")
    return tf.constant(array, spec.dtype)


def build_app(model: Model, name: str = "tfvamp", max_body: int = MAX_BODY) -> fastapi.FastAPI:
    """The application: TensorFlow Serving's three addresses, and the page."""
    app = fastapi.FastAPI(title="tfvamp", docs_url=None, redoc_url=None, openapi_url=None)
    version_spec = {"name": name, "signature_name": "", "version": model.version}

    @app.exception_handler(Refused)
    def refused(request: fastapi.Request, error: Refused):
        return JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(fastapi.exceptions.StarletteHTTPException)
    def not_found(request: fastapi.Request, error: fastapi.exceptions.StarletteHTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    def check(asked: str, version: str | None = None):
        if asked != name or version not in (None, model.version):
            what = asked if version is None else f"{asked}, version {version}"
            raise Refused(404, f"there is no model {what}: {name}, version {model.version}, is served")

    workers = concurrent.futures.ThreadPoolExecutor(WORKERS, "predict")
    places = asyncio.Semaphore(WORKERS + MAX_WAITING)

    async def read(request: fastapi.Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > max_body:
                        raise Refused(413, f"the body must have at most {max_body} bytes")
        except TimeoutError:
            raise Refused(408, f"the body must be sent within {PATIENCE:g} seconds") from None
        return bytes(body)

    def answer(body: bytes) -> JSONResponse:
        try:
            parsed = json.loads(body, parse_constant=lambda text: math.nan)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not valid JSON") from None
        return JSONResponse(model.predict(parsed))

    @app.get("/v1/models/{asked}")
    @app.get("/v1/models/{asked}/versions/{version}")
    async def status(asked: str, version: str | None = None):
        check(asked, version)
        state = {
            "version": model.version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return {"model_version_status": [state]}

    @app.get("/v1/models/{asked}/metadata")
    @app.get("/v1/models/{asked}/versions/{version}/metadata")
    async def metadata(asked: str, version: str | None = None):
        check(asked, version)
        return {"model_spec": version_spec, "metadata": {"signature_def": model.metadata()}}

    @app.post("/v1/models/{asked}:predict")
    @app.post("/v1/models/{asked}/versions/{version}:predict")
    async def predict(request: fastapi.Request, asked: str, version: str | None = None):
        check(asked, version)
        body = await read(request)
        if places.locked():
            raise Refused(503, "too many requests are waiting: try again later")
        async with places:
            # On threads of its own, so that a long computation never holds up the other addresses.
            return await asyncio.get_running_loop().run_in_executor(workers, answer, body)

    @app.get("/")
    async def page():
        return FileResponse(PAGE, media_type="text/html")

    return app


class PatientProtocol(H11Protocol):
    """HTTP of uvicorn, which drops clients that send no request in time, and those beyond a number."""

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._drop_unless_asked_after(None)

    def on_response_complete(self):
        super().on_response_complete()
        self._drop_unless_asked_after(self.cycle)

    def _drop_unless_asked_after(self, cycle):
        """Drops the client unless the header of a request after `cycle` has come in time."""

        def check():
            if self.cycle is cycle:
                self.transport.abort()

        self.loop.call_later(PATIENCE, check)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--name", default="tfvamp", help="of the model, in the addresses")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--max-images", type=int, default=1024, help="largest n of a request")
    parser.add_argument(
        "--max-draws", type=int, default=MAX_DRAWS, help="largest number of images times samples of a request"
    )
    options = parser.parse_args()
    app = build_app(Model(options.folder, options.max_images, options.max_draws), options.name)
    print(f"explore the model at http://{options.host}:{options.port}/", flush=True)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        http=PatientProtocol,
        limit_concurrency=MAX_CONNECTIONS,
    )


if __name__ == "__main__":
    main()
