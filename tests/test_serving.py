"""tfvamp serve: TensorFlow Serving's REST contract, bad requests, load, clients that dawdle or leave, a real browser."""

import concurrent.futures
import json
import logging
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import tensorflow as tf
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

import tfvamp
from tests.browser import browser
from tests.small import small_model, small_vae
from tfvamp_cli import light
from tfvamp_cli.serving import app, protocol
from tfvamp_cli.serving.limits import Limits
from tfvamp_cli.serving.served import ServedModel

PREDICT = "/v1/models/tfvamp:predict"
LIMITS = Limits(max_images=50, max_draws=2000, max_values=1000, max_body=2**20)
pytestmark = pytest.mark.xdist_group("serving")  # they share exports


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Two versions of one model; the newer one has other weights, and says what it was trained on."""
    folder = tmp_path_factory.mktemp("export")
    model = small_vae("vamp")
    tfvamp.export.export(model, folder / "2")
    for weight in model.trainable_weights:
        weight.assign(weight * 1.5)
    metadata = {
        "settings": {"dataset": "mnist5k", "model": "vae", "prior": "vamp", "likelihood": "bernoulli"},
        "validation": {"epoch": 12, "elbo": -98.7654},
        "evaluation": None,
    }
    tfvamp.export.export(model, folder / "10", metadata)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return tf.saved_model.load(str(folder / "10"))


@pytest.fixture(scope="module")
def client(folder):
    return TestClient(app.build_app(ServedModel(folder, LIMITS)))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (count, 6, 5, 1)).astype(np.float32)


def post(client, **body):
    return client.post(PREDICT, json=body)


CALLS = {
    "sample": {"n": 3, "seed": [4, 0]},
    "sample_component": {"k": 2, "n": 3, "seed": [4, 0]},
    "encode": {"images": images(2).tolist()},
    "decode": {"latents": [[0.5, -1.0, 0.0]]},
    "reconstruct": {"images": images(2).tolist(), "seed": [1, 1]},
    "log_likelihood": {"images": images(2).tolist(), "num_samples": 20, "seed": [0, 0]},
    "pseudo_inputs": {},
}


def direct(model, name, inputs) -> dict[str, np.ndarray]:
    signature = model.signatures[name]
    specs = signature.structured_input_signature[1]
    return {
        key: value.numpy()
        for key, value in signature(
            **{key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
        ).items()
    }


def test_every_signature_has_a_call(model):
    assert set(model.signatures) - {"serving_default"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_columns_equal_the_saved_model(name, client, model):
    expected = direct(model, name, CALLS[name])
    outputs = post(client, signature_name=name, inputs=CALLS[name]).json()["outputs"]
    if len(expected) == 1:
        outputs = {next(iter(expected)): outputs}
    assert set(outputs) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(outputs[key], value, rtol=1e-6)


def test_rows_equal_columns(client):
    x = images(2).tolist()
    columns = post(client, signature_name="encode", inputs={"images": x}).json()["outputs"]
    for rows in (x, [{"images": image} for image in x]):
        predictions = post(client, signature_name="encode", instances=rows).json()["predictions"]
        assert predictions == [
            {"loc": a, "log_variance": b}
            for a, b in zip(columns["loc"], columns["log_variance"], strict=True)
        ]
    bare = post(client, signature_name="decode", instances=[[0, 0, 0], [1, 1, 1]]).json()["predictions"]
    assert np.shape(bare) == (2, 6, 5, 1)


def test_the_default_signature_is_sample(client):
    assert (
        post(client, inputs=CALLS["sample"]).json()
        == post(client, signature_name="sample", inputs=CALLS["sample"]).json()
    )


def test_status_metadata_and_versions(client):
    (state,) = client.get("/v1/models/tfvamp").json()["model_version_status"]
    assert (state["version"], state["state"]) == ("10", "AVAILABLE")  # 10, not 2
    metadata = client.get("/v1/models/tfvamp/metadata").json()
    assert metadata["model_spec"] == {"name": "tfvamp", "signature_name": "", "version": "10"}
    decode = metadata["metadata"]["signature_def"]["signature_def"]["decode"]
    assert decode["method_name"] == "tensorflow/serving/predict"
    sizes = [
        [dim["size"] for dim in tensor["tensor_shape"]["dim"]]
        for tensor in (decode["inputs"]["latents"], decode["outputs"]["images"])
    ]
    assert (
        sizes == [["-1", "3"], ["-1", "6", "5", "1"]] and decode["inputs"]["latents"]["dtype"] == "DT_FLOAT"
    )
    versioned = client.post("/v1/models/tfvamp/versions/10:predict", json={"inputs": CALLS["sample"]})
    assert versioned.json() == post(client, inputs=CALLS["sample"]).json()


def test_concurrent_requests_get_their_own_answers(client):
    def ask(seed):
        return post(client, inputs={"n": 4, "seed": [seed, 0]}).json()["outputs"]

    serial = [ask(seed) for seed in range(32)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(32))) == serial
    assert len({json.dumps(answer) for answer in serial}) == 32


BAD = {
    "no signature": ({"signature_name": "vamp", "inputs": {}}, 404, "no signature 'vamp': choose one of"),
    "neither format": ({"signature_name": "sample"}, 400, '"inputs"'),
    "both formats": ({"inputs": {}, "instances": []}, 400, "not with both"),
    "unknown key": ({"inputs": CALLS["sample"], "input": 1}, 400, "unknown key 'input'"),
    "signature no string": ({"signature_name": 3, "inputs": {}}, 400, "must be a string"),
    "missing": ({"inputs": {"n": 3}}, 400, "input 'seed' of serving_default is missing"),
    "unknown input": ({"inputs": {"n": 3, "seed": [0, 0], "m": 1}}, 400, "no input 'm'"),
    "n of 0": ({"inputs": {"n": 0, "seed": [0, 0]}}, 400, "n must lie between 1 and 50; got 0"),
    "n too large": ({"inputs": {"n": 51, "seed": [0, 0]}}, 400, "n must lie between 1 and 50; got 51"),
    "n beyond int32": ({"inputs": {"n": 2**40, "seed": [0, 0]}}, 400, "n must be int32"),
    "n beyond uint32": ({"inputs": {"n": 2**32, "seed": [0, 0]}}, 400, "n must be int32"),
    "n the largest int64": ({"inputs": {"n": 2**63 - 1, "seed": [0, 0]}}, 400, "n must be int32"),
    "n the smallest int64": ({"inputs": {"n": -(2**63), "seed": [0, 0]}}, 400, "n must be int32"),
    "n beyond int64": ({"inputs": {"n": 2**63, "seed": [0, 0]}}, 400, "n must be int32"),
    "n beyond uint64": ({"inputs": {"n": 2**80, "seed": [0, 0]}}, 400, "n must be int32"),
    "seed beyond int32": ({"inputs": {"n": 1, "seed": [-(2**31) - 1, 0]}}, 400, "seed must be int32"),
    "seed the largest uint64": ({"inputs": {"n": 1, "seed": [2**64 - 1, 0]}}, 400, "seed must be int32"),
    "samples the smallest int64": ({"signature_name": "log_likelihood", "inputs": {**CALLS["log_likelihood"], "num_samples": -(2**63)}}, 400, "num_samples must be int32"),
    "samples the smallest int32": ({"signature_name": "log_likelihood", "inputs": {**CALLS["log_likelihood"], "num_samples": -(2**31)}}, 400, "num_samples must lie between 1 and"),
    "too many draws": ({"signature_name": "log_likelihood", "inputs": {**CALLS["log_likelihood"], "num_samples": 1001}}, 400, "images times num_samples must be at most 2000; got 2 times 1001"),
    "too many rows": ({"signature_name": "decode", "inputs": [[0, 0, 0]] * 51}, 400, "at most 50 rows are taken at a time; got 51"),
    "too many values": ({"inputs": {"n": 34, "seed": [0, 0]}}, 400, "the answer would have 1020 values; at most 1000"),
    "too many values decoded": ({"signature_name": "decode", "inputs": [[0, 0, 0]] * 34}, 400, "the answer would have 1020 values"),
    "latents beyond float32": ({"signature_name": "decode", "inputs": [[0, 0, 1e39]]}, 400, "latents must be finite in float32"),
    "latents integers beyond float32": ({"signature_name": "decode", "inputs": [[0, 0, 10**60]]}, 400, "latents must be finite in float32"),
    "a name that a terminal obeys": ({"signature_name": "\x1b[2J" + "a" * 9999, "inputs": {}}, 404, "'?[2Ja"),
    "n a float": ({"inputs": {"n": 3.5, "seed": [0, 0]}}, 400, "n must be int32"),
    "n a boolean": ({"inputs": {"n": True, "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "n a string": ({"inputs": {"n": "3", "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "n null": ({"inputs": {"n": None, "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "seed's shape": ({"inputs": {"n": 3, "seed": [0]}}, 400, "seed must have shape [2]; got [1]"),
    "component": ({"signature_name": "sample_component", "inputs": {"k": 5, "n": 3, "seed": [0, 0]}}, 400, "k must lie between 0 and 4"),
    "samples": ({"signature_name": "log_likelihood", "inputs": {**CALLS["log_likelihood"], "num_samples": 0}}, 400, "num_samples must lie between 1 and"),
    "ragged": ({"signature_name": "decode", "inputs": [[0, 0, 0], [0]]}, 400, "rows of one length"),
    "width": ({"signature_name": "decode", "inputs": [[0, 0]]}, 400, "latents must have shape [B, 3]; got [1, 2]"),
    "empty": ({"signature_name": "decode", "inputs": [[]]}, 400, "latents must have shape"),
    "no rows": ({"signature_name": "decode", "instances": []}, 400, "not empty"),
    "uneven rows": ({"signature_name": "decode", "instances": [{"latents": [0, 0, 0]}, {}]}, 400, "same keys"),
    "rows of scalars": ({"signature_name": "sample", "instances": [{"n": 1}]}, 400, "has no batch"),
    "images' shape": ({"signature_name": "encode", "inputs": [[0.0] * 30]}, 400, "images must have shape"),
    "images' range": ({"signature_name": "encode", "inputs": (images(1) + 1).tolist()}, 400, "images must lie between 0 and 1"),
    "a list": ([1, 2], 400, "must be an object"),
    "nothing but a list": ({"signature_name": "pseudo_inputs", "inputs": []}, 400, "inputs of pseudo_inputs must be an empty object, {}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_one_line(name, client):
    body, status, text = BAD[name]
    answer = client.post(PREDICT, json=body)
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert text in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert len(answer.json()["error"]) <= 300
    assert client.get("/v1/models/tfvamp").status_code == 200


@pytest.mark.parametrize(
    "content, status, text",
    [
        (b"{", 400, "not JSON that is read here"),
        (b"[" * 200_000, 400, "at most 1000 brackets deep"),
        (b'{"signature_name": "decode", "inputs": [[NaN, 0, 0]]}', 400, "finite numbers"),
        (b'{"signature_name": "decode", "inputs": [[1e999, 0, 0]]}', 400, "finite numbers"),
        (b"", 400, "not JSON"),
        (b"\xff\xfe", 400, "UTF-8"),
        (b" " * (2**20 + 1), 413, "at most 1048576 bytes"),
    ],
)
def test_bad_bodies_get_one_line(content, status, text, client):
    answer = client.post(PREDICT, content=content)
    assert answer.status_code == status and text in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models/other", "/v1/models/tfvamp/versions/2", "/../setup.py", "/nothing"]
)
def test_other_addresses_are_not_there(path, client):
    answer = client.get(path)
    assert answer.status_code == 404 and list(answer.json()) == ["error"]


def test_predict_takes_post_alone(client):
    for method in ("get", "put", "delete"):
        answer = getattr(client, method)(PREDICT)
        assert answer.status_code == 405 and answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "host, status",
    [
        *((host, 200) for host in ("localhost", "localhost:8501", "127.0.0.1:1", "[::1]:8501", "[::1]", "LOCALHOST")),
        *((host, 403) for host in ("evil.example", "evil.example:8501", "localhost.evil.example", "", "[::2]:8501")),
    ],
)  # fmt: skip
def test_a_local_server_is_asked_by_local_names(host, status, folder):
    """So that a page from elsewhere cannot read it under a name of its own that leads here."""
    hosts = ["localhost", "127.0.0.1", "[::1]"]
    local = TestClient(app.build_app(ServedModel(folder, LIMITS), hosts=hosts))
    assert local.get("/about", headers={"Host": host}).status_code == status


def test_a_folder_without_a_model_says_what_to_do(tmp_path):
    with pytest.raises(light.errors.UsageError, match="tfvamp export RUN --output DIR"):
        ServedModel(tmp_path, LIMITS)
    with pytest.raises(light.errors.UsageError, match="is not a SavedModel"):
        ServedModel(tmp_path / "missing", LIMITS)


@pytest.mark.parametrize("damaged", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_damaged_export_is_one_line(damaged, folder, tmp_path):
    copy = tmp_path / "1"
    shutil.copytree(folder / "10", copy)
    (copy / damaged).write_bytes(b"\x08\x01 damaged")
    with pytest.raises(light.errors.FileError, match="export the run again") as caught:
        ServedModel(copy, LIMITS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def about(folder) -> dict:
    return TestClient(app.build_app(ServedModel(folder, LIMITS))).get("/about").json()


def test_about_says_what_the_model_is(client):
    found = client.get("/about").json()
    assert found["of"] == {
        "dataset": "mnist5k", "model": "vae", "prior": "vamp", "likelihood": "bernoulli", "epoch": 12, "validation_elbo": -98.7654,
    }  # fmt: skip
    assert (found["version"], found["event_shape"], found["latent_dims"]) == ("10", [6, 5, 1], 3)


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
        (b'{"settings": [], "validation": 3, "evaluation": "x"}', {}),
        (b'{"settings": {"dataset": ["a"], "prior": "\\u001b[2Jvamp"}}', {"prior": "?[2Jvamp"}),
    ],
)
def test_metadata_of_an_export_are_data(content, expected, folder, tmp_path):
    shutil.copytree(folder / "10", tmp_path / "1")
    path = tmp_path / "1" / "assets.extra" / "tfvamp.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert about(tmp_path)["of"] == expected
    problem = ServedModel(tmp_path, LIMITS).problem
    assert "\n" not in problem and bool(problem) == (expected is None)


def test_pseudo_inputs_of_the_page(client, model):
    everything = direct(model, "pseudo_inputs", {})["images"]
    posterior = client.get("/pseudo-inputs/posteriors").json()
    expected = direct(model, "encode", {"images": everything})
    np.testing.assert_allclose(posterior["loc"], expected["loc"], rtol=1e-6)
    np.testing.assert_allclose(posterior["log_variance"], expected["log_variance"], rtol=1e-6)
    part = client.get("/pseudo-inputs", params={"first": 3, "count": 10}).json()
    np.testing.assert_array_equal(np.float32(part["images"]), everything[3:])
    generated = direct(model, "decode", {"latents": expected["loc"]})["images"]
    np.testing.assert_allclose(part["generated"], generated[3:], rtol=1e-6)


@pytest.mark.parametrize("query", ["", "first=0", "first=-1&count=3", "first=0&count=0", "first=0&count=201", "first=a&count=1", "first=1e3&count=1", "first=0&count=99999999999"])  # fmt: skip
def test_bad_numbers_in_an_address(query, client):
    answer = client.get(f"/pseudo-inputs?{query}")
    assert answer.status_code == 400 and "must be a whole number" in answer.json()["error"]


@pytest.mark.parametrize("prior", ["standard", "mog"])
def test_a_prior_without_pseudo_inputs(prior, tmp_path):
    tfvamp.export.export(small_vae(prior), tmp_path / "1")
    client = TestClient(app.build_app(ServedModel(tmp_path, LIMITS)))
    for address in ("/pseudo-inputs/posteriors", "/pseudo-inputs?first=0&count=1"):
        answer = client.get(address)
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": "the prior of this model has no pseudo-inputs"},
        )
    assert "pseudo_inputs" not in client.get("/about").json()["signatures"]


def test_the_page_fetches_nothing_from_elsewhere(client):
    answer = client.get("/")
    page = answer.text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "http://" not in page and "https://" not in page and "<script src" not in page
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]


class Server:
    """The application in a real server, on a free port.

    Attributes:
      address, port: where it listens.
      model: the model; requests for the signature "slow" are computed while `held` is not set.
      held: an event.
      desk: the queue.
    """

    def __init__(self, folder: pathlib.Path, **limits):
        chosen = Limits(**limits)
        self.model = ServedModel(folder, chosen)
        self.held, real = threading.Event(), self.model.predict

        def predict(request):
            if request.get("signature_name") == "slow":
                self.held.wait(30)
            return real(request)

        self.model.predict = predict
        application = app.build_app(self.model)
        self.desk = application.state.desk
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(application, log_level="error", http=protocol.patient(chosen), lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self):
        self.held.set()
        self._server.should_exit = True
        self._thread.join()
        self.desk.close()

    def predict(self, **body):
        return httpx.post(f"{self.address}{PREDICT}", json=body, timeout=60)

    def connect(self, size: int | None = None) -> socket.socket:
        one = socket.socket()
        if size is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        one.settimeout(20)
        one.connect(("127.0.0.1", self.port))
        return one

    def wait_until(self, condition) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def serve(folder):
    """A function that starts a server with limits of its own."""
    started = []

    def start(**limits):
        started.append(Server(folder, **limits))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def request_of(body: bytes) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


SLOW = request_of(json.dumps({"signature_name": "slow", "inputs": {}}).encode())


def test_the_status_answers_while_dear_requests_wait(serve):
    server = serve(waiting=30)
    with concurrent.futures.ThreadPoolExecutor(45) as clients:
        asked = [clients.submit(server.predict, signature_name="slow", inputs={}) for _ in range(45)]
        refused = next(concurrent.futures.as_completed(asked)).result()
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
        assert "too many requests are waiting" in refused.json()["error"]
        server.wait_until(lambda: server.desk.counts["refused"] + server.desk.pending >= 32)
        for path in ("/v1/models/tfvamp", "/v1/models/tfvamp/metadata", "/about", "/"):
            assert (
                httpx.get(f"{server.address}{path}", timeout=10).status_code == 200
            )  # while the workers are held
        assert httpx.get(f"{server.address}/about").json()["requests"]["now"] == 32
        server.held.set()
        codes = [one.result().status_code for one in asked]
    assert codes.count(404) == 32 and codes.count(503) == 13  # there is no signature "slow"
    assert server.desk.pending == 0


def test_what_takes_too_long_is_stopped(serve):
    """A log-likelihood that would take minutes leaves its worker at the deadline."""
    server = serve(deadline=1.5, workers=1, max_draws=2**40)
    body = {"images": images(1).tolist(), "num_samples": 5_000_000, "seed": [0, 0]}
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        dear = clients.submit(server.predict, signature_name="log_likelihood", inputs=body)
        server.wait_until(lambda: server.desk.pending == 1)
        behind = clients.submit(server.predict, signature_name="slow", inputs={})
        assert dear.result().status_code == 504 and "longer than 1.5 seconds" in dear.result().json()["error"]
        server.held.set()
        assert behind.result().status_code in (404, 503)  # it waited about as long
    server.wait_until(lambda: server.desk.pending == 0)
    assert server.predict(inputs=CALLS["sample"]).status_code == 200


def test_what_waits_too_long_is_sent_away(serve):
    server = serve(deadline=0.5, workers=1)
    with server.connect() as first:
        first.sendall(SLOW)
        server.wait_until(lambda: server.desk.pending == 1)
        answer = server.predict(inputs=CALLS["sample"])
        assert answer.status_code == 503 and "waited for 0.5 of the 0.5 seconds" in answer.json()["error"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert b"504" in first.recv(100)


def test_clients_that_leave_cost_nothing(serve, caplog):
    server = serve(workers=1, deadline=60, max_draws=2**40)
    dear = {"images": images(1).tolist(), "num_samples": 5_000_000, "seed": [0, 0]}
    body = json.dumps({"signature_name": "log_likelihood", "inputs": dear}).encode()
    with caplog.at_level(logging.INFO):
        leaving = [server.connect() for _ in range(4)]
        for one in leaving:
            one.sendall(request_of(body))
        with server.connect() as in_the_body:
            in_the_body.sendall(request_of(body)[:-5])
        server.wait_until(lambda: server.desk.pending == 4)
        for one in leaving:
            one.close()
        server.wait_until(lambda: server.desk.pending == 0)  # the one that was computed, too
        assert server.predict(inputs=CALLS["sample"]).status_code == 200
    assert server.desk.counts["left"] == 4
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def closed(client: socket.socket) -> bool:
    """Whether the server has dropped a client that sends nothing more."""
    try:
        while client.recv(2**20):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nX: "])
def test_clients_that_send_no_request_are_dropped(sent, serve):
    server = serve(patience=0.4, connections=20)
    dawdling = [server.connect() for _ in range(30)]
    for one in dawdling:
        try:
            one.sendall(sent)
        except OSError:  # beyond the number of connections
            continue
    assert all(map(closed, dawdling))
    assert httpx.get(f"{server.address}/v1/models/tfvamp", timeout=10).status_code == 200


def test_a_request_sent_letter_by_letter_is_dropped(serve):
    server = serve(patience=0.4)
    with server.connect() as one, pytest.raises(OSError):
        for _ in range(100):
            one.sendall(b"G")
            time.sleep(0.1)


def test_a_body_that_does_not_end_is_dropped(serve):
    server = serve(patience=0.4)
    with server.connect() as client:
        client.sendall(b"POST /v1/models/tfvamp:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b"408" in client.recv(1000)


def test_a_client_that_takes_no_answer_is_dropped(serve):
    """Its answer does not fit into the buffers of the connection."""
    server = serve(patience=0.4, max_images=100_000, max_values=2**30)
    body = json.dumps({"inputs": {"n": 30_000, "seed": [0, 0]}}).encode()
    with server.connect(size=4096) as one:
        one.sendall(request_of(body))
        server.wait_until(lambda: server.desk.counts["answered"] == 1)
        time.sleep(2)  # it takes nothing
        received = 0
        try:
            while part := one.recv(2**20):
                received += len(part)
        except ConnectionError:
            pass
    assert received < 6_000_000  # of 30,000 images of 30 values, at least 7 letters each
    assert server.desk.pending == 0


def test_an_answer_taken_slowly_comes_whole(serve):
    server = serve(patience=0.4, max_images=100_000, max_values=2**30)
    body = json.dumps({"inputs": {"n": 5_000, "seed": [0, 0]}}).encode()
    whole = httpx.post(f"{server.address}{PREDICT}", content=body, timeout=60).content
    assert len(whole) > 10**6
    received = b""
    with server.connect(size=2**17) as one:
        one.sendall(request_of(body))
        while not received.endswith(whole[-100:]):
            received += one.recv(2**17)
            time.sleep(0.05)
    assert received.partition(b"\r\n\r\n")[2] == whole


def test_bodies_of_nothing_are_refused_and_the_status_answers(serve):
    server = serve(max_body=2**21, held=3 * 2**20)
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        asked = one.submit(
            httpx.post, f"{server.address}{PREDICT}", content=b"[]," * (2**21 // 3), timeout=30
        )
        assert httpx.get(f"{server.address}/v1/models/tfvamp", timeout=10).status_code == 200
        assert asked.result().status_code == 400
    too_large = httpx.post(f"{server.address}{PREDICT}", content=b" " * (2**21 + 1), timeout=30)
    assert too_large.status_code == 413
    in_chunks = httpx.post(f"{server.address}{PREDICT}", content=iter([b" " * 2**20] * 3), timeout=30)
    assert in_chunks.status_code == 413
    with server.connect() as first:  # what is held in memory is bounded over all requests
        first.sendall(request_of(b" " * 2**21)[:-1])
        second = httpx.post(f"{server.address}{PREDICT}", content=b" " * 2**21, timeout=30)
        for _ in range(50):
            if second.status_code == 503:
                break
            second = httpx.post(f"{server.address}{PREDICT}", content=b" " * 2**21, timeout=30)
        assert second.status_code == 503 and "too much is being sent" in second.json()["error"]
    server.wait_until(lambda: server.predict(inputs=CALLS["sample"]).status_code == 200)


def run(*arguments, **kwargs):
    command = [sys.executable, "-m", "tfvamp_cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def test_the_command(folder):
    """It serves until a signal."""
    command = [sys.executable, "-u", "-m", "tfvamp_cli.main", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert "version 10: open http://127.0.0.1:" in line
        address = re.search("http://[0-9.:]+", line).group()
        assert httpx.get(f"{address}/about", headers={"Host": "evil.example"}).status_code == 403
        answer = httpx.post(f"{address}{PREDICT}", json={"inputs": CALLS["sample"]}, timeout=60)
        assert np.shape(answer.json()["outputs"]) == (3, 6, 5, 1)
        port = address.rpartition(":")[2]
        other = run("serve", str(folder), "--port", port)
        assert other.returncode == 2 and "choose another --host or --port" in other.stderr
        process.terminate()
        assert process.wait(30) == 143
        assert process.stderr.read().splitlines() == ["tfvamp: interrupted"]
    finally:
        process.kill()


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--name", "a/b"], "--name must be letters"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--port", "0"], "is not a SavedModel"),
    ],
)
def test_what_the_command_refuses(arguments, text, tmp_path):
    result = run("serve", str(tmp_path), *arguments)
    assert result.returncode == 2 and text in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["uvicorn", "starlette", "orjson"])
def test_without_the_extra(missing, folder):
    code = f"import sys; sys.modules[{missing!r}] = None; from tfvamp_cli.main import main; main(['serve', {str(folder)!r}, '--port', '0'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "tfvamp: tfvamp serve needs more packages: pip install 'tfvamp[serve]'\n"


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def page(server):
    """The page, ready, in a real Chromium; its errors fail the test."""
    yield from pages(server)


def pages(server):
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console", lambda message: errors.append(message.text) if "Security" in message.text else None
        )
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        yield page
    assert not errors


def wait(page, expression: str, arg=None) -> None:
    """Waits until a JavaScript expression holds; `page.wait_for_function` is not allowed by the page's policy."""
    end = time.monotonic() + 30
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


PIXELS = """canvases => canvases.map(canvas =>
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 == 0))"""


def pixels(page, selector: str) -> np.ndarray:
    """The red of every pixel of some canvases, [n, H W]."""
    return np.array(page.eval_on_selector_all(selector, PIXELS))


def rounded(values) -> np.ndarray:
    return np.round(255 * np.asarray(values)).reshape(len(values), -1)


@pytest.mark.slow
def test_the_page_shows_what_the_model_gives(page, model):
    facts = page.inner_text("#facts").replace("\n", " ")
    for text in (
        "data set mnist5k",
        "prior vamp",
        "epoch 12",
        "ELBO -98.77 nats",
        "latents 3",
        "6 \u00d7 5 \u00d7 1",
        "pseudo-inputs 5",
    ):
        assert text in facts
    posterior = direct(model, "encode", {"images": direct(model, "pseudo_inputs", {})["images"]})
    generated = direct(model, "decode", {"latents": posterior["loc"]})["images"]
    assert np.abs(pixels(page, "#components canvas") - rounded(generated)).max() <= 1
    page.uncheck("#generated")
    pseudo_inputs = direct(model, "pseudo_inputs", {})["images"]
    assert np.abs(pixels(page, "#components canvas") - rounded(pseudo_inputs)).max() <= 1

    # A pseudo-input: its posterior's mean, and samples of its component.
    page.click("#components button:nth-child(3)")
    wait(page, "document.querySelector('#sampled').textContent.includes('pseudo-input 2')")
    wait(page, "z => document.querySelector('#now').dataset.z.split(',').every((v, d) => Math.abs(v - z[d]) < 1e-4)", arg=posterior["loc"][2].tolist())  # fmt: skip
    assert np.abs(pixels(page, "#now") - rounded(generated[2:3])).max() <= 1
    expected = direct(model, "sample_component", {"k": 2, "n": 32, "seed": [0, 0]})["images"]
    assert np.abs(pixels(page, "#samples canvas") - rounded(expected)).max() <= 1


@pytest.mark.slow
def test_sliders_move_the_picture(page, model):
    before = pixels(page, "#now")
    slider = page.locator("#sliders input").first
    dimension = int(slider.get_attribute("data-dimension"))
    for _ in range(60):
        slider.press("ArrowRight")  # by the keyboard, many requests in a row
    value = float(slider.input_value())
    wait(page,
        "([d, v]) => Math.abs(document.querySelector('#now').dataset.z.split(',')[d] - v) < 1e-6", arg=[dimension, value]
    )  # fmt: skip
    z = np.array(page.get_attribute("#now", "data-z").split(","), np.float32)
    assert z[dimension] == pytest.approx(value)
    after = pixels(page, "#now")
    assert (after != before).any()
    assert np.abs(after - rounded(direct(model, "decode", {"latents": [z]})["images"])).max() <= 1

    # From A to B.
    page.click("#set-a")
    page.click("#components button:nth-child(1)")
    wait(page, "document.querySelector('#sampled').textContent.includes('pseudo-input 0')")
    page.click("#set-b")
    page.locator("#between").press("End")
    page.locator("#between").press("Home")
    wait(page, "z => document.querySelector('#now').dataset.z.split(',').every((v, d) => Math.abs(v - z[d]) < 1e-6)", z.tolist())  # fmt: skip
    np.testing.assert_array_equal(pixels(page, "#now"), after)


@pytest.mark.slow
def test_seeds_on_the_page(page, server):
    def sample(seed):
        page.fill("#seed", str(seed))
        page.click("#sample")
        wait(page, "s => document.querySelector('#sampled').textContent === `of the prior, seed ${s}`", arg=seed)  # fmt: skip
        return pixels(page, "#samples canvas")

    first, other = sample(7), sample(8)
    np.testing.assert_array_equal(sample(7), first)
    assert (first != other).any()
    with page.expect_download() as download:
        page.click("#save-samples")
    assert download.value.suggested_filename == "samples-seed-7.png"
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))[..., 0]
    scale = (512 // 36) or 1  # 32 samples in 6 columns of 6 rows, of 6 x 5 pixels with a line between
    tiles = [
        saved[(i // 6) * 7 * scale :: scale, (i % 6) * 6 * scale :: scale][:6, :5].ravel() for i in range(32)
    ]
    np.testing.assert_array_equal(tiles, first)
    server.stop()
    page.click("#sample")
    wait(page, "document.querySelector('[role=alert]').textContent.includes('does not answer')")


@pytest.mark.slow
@pytest.mark.parametrize("background", ["white", "black"])
def test_a_file_is_read_as_a_folder_of_images_was(background, tmp_path):
    """Laid over the background of the run, and stretched to its size."""
    settings = {"dataset": "folder:icons", "background": background}
    model = small_model(tfvamp.models.VAE, event_shape=(6, 5, 3), likelihood="logistic")
    tfvamp.export.export(model, tmp_path / "1", {"settings": settings})
    icon = np.zeros((12, 60, 4), np.uint8)
    icon[:, 24:36] = (0, 255, 0, 255)  # the middle one of five columns; the rest is transparent
    Image.fromarray(icon).save(tmp_path / "icon.png")
    server = Server(tmp_path)
    try:
        for page in pages(server):
            page.set_input_files("#file", tmp_path / "icon.png")
            explained(page, 1)
            red = pixels(page, "#drawing").reshape(6, 5)
    finally:
        server.stop()
    assert (np.abs(red[:, [0, 4]] - (255 if background == "white" else 0)) <= 8).all()
    assert (red[:, 2] < 90).all()  # green, up to the upper and lower edge


def explained(page, number: int) -> None:
    page.wait_for_selector(f"#drawing[data-explained='{number}']", timeout=30_000)


def check_explained(page, model) -> np.ndarray:
    """The page shows what the model says of the image [H, W, C] on its canvas, which is returned."""
    image = np.float32(pixels(page, "#drawing").reshape(6, 5, 1) / 255)
    again = direct(model, "reconstruct", {"images": image[None], "seed": [0, 0]})["images"]
    assert np.abs(pixels(page, "#reconstruction") - rounded(again[..., :1])).max() <= 1
    inputs = {"images": image[None], "num_samples": 500, "seed": [0, 0]}
    nats = direct(model, "log_likelihood", inputs)["log_likelihood"][0]
    assert f"is about {nats:.1f} nats" in page.inner_text("#reconstructed")
    own = direct(model, "encode", {"images": image[None]})
    theirs = direct(model, "encode", {"images": direct(model, "pseudo_inputs", {})["images"]})
    difference = own["log_variance"] - theirs["log_variance"]
    distance = (own["loc"] - theirs["loc"]) ** 2 / np.exp(theirs["log_variance"])
    kl = 0.5 * (np.exp(difference) + distance - 1 - difference).sum(-1)
    order = np.argsort(kl)
    titles = page.eval_on_selector_all("#nearest button", "all => all.map(one => one.title)")
    assert titles == [f"Pseudo-input {k}" for k in order]
    texts = page.eval_on_selector_all("#nearest span", "all => all.map(one => Number(one.textContent))")
    np.testing.assert_allclose(texts, kl[order], atol=0.051)
    return image


@pytest.mark.slow
def test_an_image_of_your_own(page, model, tmp_path):
    """A file, black and white or grey; then one that is drawn with the pointer."""
    grey = np.zeros((60, 50, 3), np.uint8)
    grey[10:30, 20:40] = 200
    Image.fromarray(grey).save(tmp_path / "grey.png")
    page.set_input_files("#file", tmp_path / "grey.png")
    explained(page, 1)
    page.uncheck("#binary")
    explained(page, 2)
    image = check_explained(page, model)
    square = np.zeros((6, 5, 1), bool)
    square[1:3, 2:4] = True
    assert image[square].min() > 0.5 and image[~square].max() < 0.2  # edges are smoothed

    # Not an image.
    (tmp_path / "text.png").write_text("text")
    page.set_input_files("#file", tmp_path / "text.png")
    wait(page, "document.querySelector('[role=alert]').textContent.includes('text.png is not an image')")

    page.check("#binary")
    explained(page, 3)
    page.click("#clear")
    explained(page, 4)
    page.locator("#drawing").scroll_into_view_if_needed()
    box = page.locator("#drawing").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.05 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.95 * box["height"], steps=5)
    page.mouse.up()
    explained(page, 5)
    column = np.zeros((6, 5, 1), np.float32)
    column[:, 2] = 1.0
    np.testing.assert_array_equal(pixels(page, "#drawing").reshape(6, 5, 1) >= 127.5, column > 0)
    page.click("#go-there")
    loc = direct(model, "encode", {"images": column[None]})["loc"][0]
    wait(page, "z => document.querySelector('#now').dataset.z.split(',').every((v, d) => Math.abs(v - z[d]) < 1e-3)", arg=loc.tolist())  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colour", "no pseudo-inputs", "two layers"])
def test_the_page_with_other_models(kind, tmp_path):
    """At two widths: nothing runs out of the page."""
    if kind == "colour":
        model = small_model(tfvamp.models.VAE, event_shape=(6, 5, 3), likelihood="logistic")
    elif kind == "two layers":
        model = small_model(tfvamp.models.HVAE)
    else:
        model = small_vae("standard")
    tfvamp.export.export(model, tmp_path / "1")
    server = Server(tmp_path)
    try:
        for page in pages(server):
            page.click("#invert")
            wait(page, "document.querySelector('#reconstructed').textContent.includes('nats')")
            assert page.inner_text("#error") == ""
            assert page.is_visible("#components-tools") == (kind != "no pseudo-inputs")
            assert len(pixels(page, "#samples canvas")) == 32
            for width in (1280, 400):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        server.stop()
