"""examples/serve.py under requests that take long, clients that dawdle, and numbers at the ends of their range."""

import asyncio
import concurrent.futures
import importlib.util
import pathlib
import socket
import threading
import time

import httpx
import pytest
import tensorflow as tf
import uvicorn

SERVE = pathlib.Path(__file__).parents[1] / "examples" / "serve.py"


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve_under_load", SERVE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PATIENCE, module.MAX_CONNECTIONS = 1.0, 40
    return module


@pytest.fixture(scope="module")
def model(serve, tmp_path_factory):
    """Signatures as an export has them, one of which takes as long as its events are not set."""
    held = threading.Event()

    def wait(n):
        held.wait(30)
        return n

    module = tf.Module()
    n, seed = tf.TensorSpec([], tf.int32, "n"), tf.TensorSpec([2], tf.int32, "seed")
    images = tf.TensorSpec([None, 2], tf.float32, "images")
    count = tf.TensorSpec([], tf.int32, "num_samples")
    module.sample = tf.function(lambda n, seed: {"images": tf.zeros([n, 2]) + tf.cast(seed[0], tf.float32)})
    module.likelihood = tf.function(
        lambda images, num_samples: {"log_likelihood": images[:, 0] * tf.cast(num_samples, tf.float32)}
    )
    folder = tmp_path_factory.mktemp("model")
    signatures = {
        "serving_default": module.sample.get_concrete_function(n, seed),
        "log_likelihood": module.likelihood.get_concrete_function(images, count),
    }
    tf.saved_model.save(module, str(folder), signatures)
    served = serve.Model(folder, max_draws=100)
    real = served.predict
    served.predict = lambda body: (
        (wait(0), real(body))[1] if body.get("signature_name") == "slow" else real(body)
    )
    served.held = held
    return served


@pytest.fixture(scope="module")
def address(serve, model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        serve.build_app(model), port=port, log_level="error", http=serve.PatientProtocol, limit_concurrency=40
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    model.held.set()
    server.should_exit = True
    thread.join(10)


def predict(address, **body):
    return httpx.post(f"{address}/v1/models/tfvamp:predict", json=body, timeout=30)


def test_the_status_is_there_while_all_workers_compute(address, serve, model):
    count = serve.WORKERS + serve.MAX_WAITING + 3
    with concurrent.futures.ThreadPoolExecutor(count) as clients:
        waiting = [clients.submit(predict, address, signature_name="slow", inputs={}) for _ in range(count)]
        refused = next(concurrent.futures.as_completed(waiting)).result()
        assert refused.status_code == 503 and "try again later" in refused.json()["error"]
        start = time.monotonic()
        assert httpx.get(f"{address}/v1/models/tfvamp").status_code == 200
        assert time.monotonic() - start < 5  # while the workers are held
        model.held.set()
        codes = [one.result().status_code for one in waiting]
    assert set(codes) == {404, 503} and codes.count(503) >= 1  # there is no signature "slow"


def test_too_many_draws_are_refused(address):
    body = {"signature_name": "log_likelihood", "inputs": {"images": [[1.0, 0.0]] * 5, "num_samples": 20}}
    assert predict(address, **body).json() == {"outputs": [20.0] * 5}
    body["inputs"]["num_samples"] = 21
    answer = predict(address, **body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "images times num_samples must be at most 100; got 5 times 21"


@pytest.mark.parametrize("number", [-(2**63), -(2**31) - 1, 2**31, 2**63 - 1, 2**63, 1.5])
def test_numbers_outside_int32_are_refused(number, address):
    for inputs in ({"n": number, "seed": [1, 0]}, {"n": 1, "seed": [number, 0]}):
        answer = predict(address, inputs=inputs)
        assert answer.status_code == 400 and "must be" in answer.json()["error"], answer.text
    assert predict(address, inputs={"n": 1, "seed": [-(2**31), 0]}).json() == {"outputs": [[-(2.0**31)] * 2]}


def test_clients_that_send_no_request_are_dropped(address):
    host, port = address.removeprefix("http://").split(":")
    dawdling = [socket.create_connection((host, int(port)), timeout=20) for _ in range(60)]
    for one in dawdling:
        try:
            one.sendall(b"G")
        except OSError:
            continue
    closed = 0
    for one in dawdling:
        try:
            closed += one.recv(10) == b""
        except ConnectionError:
            closed += 1
        one.close()
    assert closed == len(dawdling)
    assert httpx.get(f"{address}/v1/models/tfvamp", timeout=10).status_code == 200


def test_a_body_that_does_not_end_is_dropped(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        head = b"POST /v1/models/tfvamp:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        client.sendall(head)
        assert b"408" in client.recv(1000)


def test_a_large_body_of_nothing_is_refused_and_the_status_answers(address):
    body = b"[]," * (7 * 2**20 // 3)
    with concurrent.futures.ThreadPoolExecutor(1) as client:
        asked = client.submit(httpx.post, f"{address}/v1/models/tfvamp:predict", content=body, timeout=30)
        assert httpx.get(f"{address}/v1/models/tfvamp", timeout=10).status_code == 200
        assert asked.result().status_code == 400
    too_large = httpx.post(f"{address}/v1/models/tfvamp:predict", content=b" " * (9 * 2**20), timeout=30)
    assert too_large.status_code == 413
