"""examples/serve.py and its page: TensorFlow Serving's REST contract, bad requests, a real browser."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import uvicorn
from fastapi.testclient import TestClient

import tfvamp
from tests.conftest import small_vae

ROOT = pathlib.Path(__file__).parent.parent
PREDICT = "/v1/models/tfvamp:predict"
pytestmark = pytest.mark.xdist_group("serving")  # they share exports


def load_example():
    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serve = load_example()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Two versions of one model; the newer one has other weights."""
    folder = tmp_path_factory.mktemp("export")
    model = small_vae("vamp")
    tfvamp.export.export(model, folder / "2")
    for weight in model.trainable_weights:
        weight.assign(weight * 1.5)
    tfvamp.export.export(model, folder / "10")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return tf.saved_model.load(str(folder / "10"))


@pytest.fixture(scope="module")
def client(folder):
    return TestClient(serve.build_app(serve.Model(folder, max_images=50), max_body=2**20))


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
    signatures = client.get("/v1/models/tfvamp/metadata").json()["metadata"]["signature_def"]
    assert signatures["decode"] == {
        "inputs": {"latents": {"dtype": "float32", "shape": [None, 3]}},
        "outputs": {"images": {"dtype": "float32", "shape": [None, 6, 5, 1]}},
    }
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
    "both formats": ({"inputs": {}, "instances": []}, 400, '"inputs"'),
    "unknown key": ({"inputs": CALLS["sample"], "input": 1}, 400, "unknown key 'input'"),
    "signature no string": ({"signature_name": 3, "inputs": {}}, 400, "must be a string"),
    "missing": ({"inputs": {"n": 3}}, 400, "input 'seed' of serving_default is missing"),
    "unknown input": ({"inputs": {"n": 3, "seed": [0, 0], "m": 1}}, 400, "no input 'm'"),
    "n of 0": ({"inputs": {"n": 0, "seed": [0, 0]}}, 400, "n must lie between 1 and 50; got 0"),
    "n too large": ({"inputs": {"n": 51, "seed": [0, 0]}}, 400, "n must lie between 1 and 50; got 51"),
    "n beyond int32": ({"inputs": {"n": 2**40, "seed": [0, 0]}}, 400, "n must be int32"),
    "n beyond int64": ({"inputs": {"n": 2**80, "seed": [0, 0]}}, 400, "n must be"),
    "n a float": ({"inputs": {"n": 3.5, "seed": [0, 0]}}, 400, "n must be int32"),
    "n a boolean": ({"inputs": {"n": True, "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "n a string": ({"inputs": {"n": "3", "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "n null": ({"inputs": {"n": None, "seed": [0, 0]}}, 400, "n must be an array of numbers"),
    "seed's shape": ({"inputs": {"n": 3, "seed": [0]}}, 400, "seed must have shape [2]; got [1]"),
    "component": ({"signature_name": "sample_component", "inputs": {"k": 5, "n": 3, "seed": [0, 0]}}, 400, "k must lie between 0 and 4"),
    "samples": ({"signature_name": "log_likelihood", "inputs": {**CALLS["log_likelihood"], "num_samples": 0}}, 400, "num_samples must lie between 1 and"),
    "ragged": ({"signature_name": "decode", "inputs": [[0, 0, 0], [0]]}, 400, "rows of one length"),
    "width": ({"signature_name": "decode", "inputs": [[0, 0]]}, 400, "latents must have shape ['B', 3]; got [1, 2]"),
    "empty": ({"signature_name": "decode", "inputs": [[]]}, 400, "latents must have shape"),
    "no rows": ({"signature_name": "decode", "instances": []}, 400, "not empty"),
    "uneven rows": ({"signature_name": "decode", "instances": [{"latents": [0, 0, 0]}, {}]}, 400, "same keys"),
    "rows of scalars": ({"signature_name": "sample", "instances": [{"n": 1}]}, 400, "has no batch"),
    "images' shape": ({"signature_name": "encode", "inputs": [[0.0] * 30]}, 400, "images must have shape"),
    "images' range": ({"signature_name": "encode", "inputs": (images(1) + 1).tolist()}, 400, "images must lie between 0 and 1"),
    "a list": ([1, 2], 400, "must be an object"),
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
        (b"{", 400, "not valid JSON"),
        (b"[" * 200_000, 400, "not valid JSON"),
        (b'{"signature_name": "decode", "inputs": [[NaN, 0, 0]]}', 400, "latents must be finite"),
        (b'{"signature_name": "decode", "inputs": [[1e999, 0, 0]]}', 400, "latents must be finite"),
        (b"\xff\xfe", 400, "not valid JSON"),
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


def test_a_folder_without_a_model_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="tfvamp export RUN --output DIR"):
        serve.Model(tmp_path)


def test_the_page_fetches_nothing_from_elsewhere(client):
    page = client.get("/").text
    assert "http://" not in page and "https://" not in page and "<script src" not in page


@pytest.fixture
def server(folder):
    """The application in a real server, on a port that is free; stop it by `should_exit`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = serve.build_app(serve.Model(folder))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    server.address = f"http://127.0.0.1:{port}/"
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(server):
    """The page, ready, in a real Chromium; its errors fail the test."""
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("there is no Chromium (set CHROMIUM)")
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
    ]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=flags)
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        yield page
        chromium.close()
        assert not errors


PIXELS = """canvases => canvases.map(canvas =>
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 == 0))"""


def pixels(page, selector: str) -> np.ndarray:
    """The red of every pixel of some canvases, [n, H W]."""
    return np.array(page.eval_on_selector_all(selector, PIXELS))


def rounded(values) -> np.ndarray:
    return np.round(255 * np.asarray(values)).reshape(len(values), -1)


@pytest.mark.slow
def test_the_page_shows_what_the_model_gives(page, model):
    assert re.match("3 latents, images of 6 . 5 . 1, 5 pseudo-inputs", page.inner_text("#about"))
    posterior = direct(model, "encode", {"images": direct(model, "pseudo_inputs", {})["images"]})
    generated = direct(model, "decode", {"latents": posterior["loc"]})["images"]
    assert np.abs(pixels(page, "#components canvas") - rounded(generated)).max() <= 1
    page.uncheck("#generated")
    pseudo_inputs = direct(model, "pseudo_inputs", {})["images"]
    assert np.abs(pixels(page, "#components canvas") - rounded(pseudo_inputs)).max() <= 1

    # A pseudo-input: its posterior's mean, and samples of its component.
    page.click("#components button:nth-child(3)")
    page.wait_for_function("document.querySelector('#sampled').textContent.includes('pseudo-input 2')")
    page.wait_for_function("z => document.querySelector('#now').dataset.z.split(',').every((v, d) => Math.abs(v - z[d]) < 1e-4)", arg=posterior["loc"][2].tolist())  # fmt: skip
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
    page.wait_for_function(
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
    page.wait_for_function("document.querySelector('#sampled').textContent.includes('pseudo-input 0')")
    page.click("#set-b")
    page.locator("#between").press("End")
    page.locator("#between").press("Home")
    page.wait_for_timeout(500)
    np.testing.assert_array_equal(pixels(page, "#now"), after)


@pytest.mark.slow
def test_seeds_on_the_page(page, server):
    def sample(seed):
        page.fill("#seed", str(seed))
        page.click("#sample")
        page.wait_for_function("s => document.querySelector('#sampled').textContent === `of the prior, seed ${s}`", arg=seed)  # fmt: skip
        return pixels(page, "#samples canvas")

    first, other = sample(7), sample(8)
    np.testing.assert_array_equal(sample(7), first)
    assert (first != other).any()
    server.should_exit = True
    time.sleep(1.0)
    page.click("#sample")
    page.wait_for_function("document.querySelector('[role=alert]').textContent.includes('does not answer')")
