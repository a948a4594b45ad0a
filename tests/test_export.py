"""The SavedModel: the same numbers as the model's, in a process with TensorFlow alone; bad input; the folder."""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from click.testing import CliRunner
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tests import twins
from tests.small import shallow_networks, small_model, small_vae
from tests.storm import small_blocks
from tests.test_docs import ROOT, blocks
from tfvamp import evaluation, export, files, runs, seeds, training
from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, UsageError
from tfvamp.models import MODELS, PRIORS
from tfvamp_cli.main import main

PAGE = ROOT / "docs" / "export.md"
pytestmark = pytest.mark.xdist_group("export")  # they share exports
ALONE = """
import sys
for name in ("keras", "tf_keras", "tensorflow_probability", "tfvamp"):
    sys.modules[name] = None
"""


# The priors of the VAE; then, with a VampPrior, the VAE of grey images, and the other models.
NAMES = (*PRIORS, "grey", *(name for name in MODELS if name != "vae"))
IMAGES = np.random.default_rng(0).integers(0, 2, (8, 6, 5, 1)).astype(np.float32)  # those of `images`


def moved(name: str):
    """A model whose weights are far from their initial values, so that K components and B images differ."""
    if name in MODELS:
        with pytest.MonkeyPatch.context() as patch:
            shallow_networks(patch.setattr)
            model = small_model(MODELS[name])
    else:
        model = small_vae("vamp", likelihood="logistic") if name == "grey" else small_vae(name)
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        fan_in = int(np.prod(variable.shape[:-1]))
        # Convolutions and couplings that keep the size of what goes in: larger ones multiply float32's rounding
        # layer by layer.
        if "coupling" in variable.name:
            spread = 0.3 * fan_in**-0.5
        elif len(variable.shape) == 4 and variable.name != "pseudo_inputs":
            spread = fan_in**-0.5
        else:
            spread = 0.4
        variable.assign_add(rng.normal(0.0, spread, variable.shape))
    return model


class Exports:
    """What is made of each model once: its export, that loaded, and the numbers of both. Nothing changes the models."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.model = functools.cache(moved)
        self.loaded = functools.cache(lambda name: tf.saved_model.load(self.folder(name)))
        self.results = functools.cache(lambda name: results(self.loaded(name), name, IMAGES))
        self.expected = functools.cache(lambda name: expected(self.model(name), name, IMAGES))

    def folder(self, name: str) -> pathlib.Path:
        if not (self.path / name).exists():
            export.export(self.model(name), self.path / name)
        return self.path / name


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture
def few_functions(monkeypatch):
    """Exports of four functions alone, where the folder is tested and not what is in it."""
    kept = ("sample", "encode", "decode", "pseudo_inputs")

    class Few(export.Functions):
        def __init__(self, model):
            super().__init__(model)
            self.signatures = {name: arguments for name, arguments in self.signatures.items() if name in kept}

    monkeypatch.setattr(export, "Functions", Few)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """An evaluated run, in a folder runs/first."""
    path = tmp_path_factory.mktemp("work") / "runs" / "first"
    config = TrainConfig(
        dataset="mnist5k", components=7, hidden_units=12, latent_dims=4, epochs=1, warmup=1, limit=60,
        batch_size=30, jit=False, data_dir=data_dir,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:  # as `eager`
        small_blocks(patch.setattr)
        tf.config.run_functions_eagerly(True)
        try:
            training.train(config, path)
            runs.evaluate(path, num_samples=3, limit=4, proposal="encoder")
        finally:
            tf.config.run_functions_eagerly(False)
    return path


def tfvamp_command(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def expected(model, prior: str, images) -> dict[str, np.ndarray]:
    """What the functions must give, from the Python model."""
    posterior = model.encoder(images)
    loc, log_variance = posterior.loc.numpy(), posterior.log_variance.numpy()
    dataset = tf.data.Dataset.from_tensor_slices(images)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # encoded in blocks of the size that the export gets: equal rounding
        patch.setattr("tfvamp.evaluation.images.AT_ONCE", len(images))
        estimates = evaluation.log_likelihood(model, dataset, 50, seed=7, jit=False).per_example
    arrays = {
        "sample": model.sample(16, 7),
        "loc": loc,
        "log_variance": log_variance,
        "decode": model.pictures(model.generate(loc), seeds.stateless(0)),
        "reconstruct": model.pictures(model.reconstruct(images, 7), seeds.as_seed(7)),
        "log_likelihood": estimates,
    }
    if model.prior.is_mixture():
        arrays["sample_component"] = model.sample(6, 7, component=4)
    if model.prior.clipped_pseudo_inputs() is not None:
        arrays["pseudo_inputs"] = model.prior.clipped_pseudo_inputs()
    return {name: np.asarray(array) for name, array in arrays.items()}


CALLS = """
def results(m, prior, images):
    posterior = m.encode(images)
    arrays = {
        "sample": m.sample(16, [7, 0])["images"],
        "loc": posterior["loc"],
        "log_variance": posterior["log_variance"],
        "decode": m.decode(posterior["loc"])["images"],
        "reconstruct": m.reconstruct(images, [7, 0])["images"],
        "log_likelihood": m.log_likelihood(images, 50, [7, 0])["log_likelihood"],
    }
    if hasattr(m, "sample_component"):
        arrays["sample_component"] = m.sample_component(4, 6, [7, 0])["images"]
    if hasattr(m, "pseudo_inputs"):
        arrays["pseudo_inputs"] = m.pseudo_inputs()["images"]
    return {name: array.numpy() for name, array in arrays.items()}
"""
results = {}
exec(CALLS, results)
results = results["results"]


def assert_equal(ours: dict, theirs: dict):
    assert set(ours) == set(theirs)
    for name in ours:
        # float32; log-likelihoods of some -25 nats are sums over 30 pixels and 50 samples
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("prior", NAMES)
def test_the_functions_give_the_models_numbers(exports, prior):
    m, ours = exports.loaded(prior), exports.results(prior)
    assert_equal(ours, exports.expected(prior))
    assert hasattr(m, "pseudo_inputs") == (prior not in ("standard", "mog", "flow"))
    assert hasattr(m, "sample_component") == (prior not in ("standard", "flow"))
    for name in ("sample", "reconstruct", "log_likelihood"):  # else the comparison would show little
        assert np.ptp(ours[name].reshape(len(ours[name]), -1), axis=0).max() > 0.1, name
    for other in ([8, 0], [7, 1]):
        assert np.abs(ours["sample"] - m.sample(16, other)["images"]).max() > 0.1
        assert (
            np.abs(ours["log_likelihood"] - m.log_likelihood(IMAGES, 50, other)["log_likelihood"]).max() > 0.1
        )
    np.testing.assert_array_equal(m.sample(seed=[7, 0], n=16)["images"], ours["sample"])


def test_with_tensorflow_alone(exports, tmp_path):
    """And the same to the last bit as another load in another process."""
    np.save(tmp_path / "images.npy", IMAGES)
    folders = {name: str(exports.folder(name)) for name in NAMES}
    code = f"""{ALONE}
import numpy as np, tensorflow as tf
{CALLS}
images = np.load({str(tmp_path / "images.npy")!r})
for prior, folder in {folders!r}.items():
    m = tf.saved_model.load(folder)
    np.savez({str(tmp_path)!r} + "/" + prior + ".npz", **results(m, prior, images))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for prior in NAMES:
        with np.load(tmp_path / f"{prior}.npz") as file:
            theirs = dict(file)
        assert_equal(exports.expected(prior), theirs)
        for name, ours in exports.results(prior).items():
            np.testing.assert_array_equal(ours, theirs[name], err_msg=f"{prior} {name}")


@pytest.mark.parametrize("prior", ["vamp", "vamp-weighted"])
def test_log_likelihood_equals_its_numpy_twin(exports, prior, images):
    num_samples, twin = 9, twins.VAETwin(exports.model(prior))
    loc, log_variance = twin.encoder(images)
    log_weights = np.empty((num_samples, len(images)))
    noise = [
        seeds.normal([num_samples, 3], seeds.fold_in(seeds.stateless(2, "evaluate"), i)).numpy()
        for i in range(len(images))
    ]
    for s in range(num_samples):
        z = loc + np.exp(0.5 * log_variance) * np.stack([draws[s] for draws in noise])
        terms = twin.terms(images, z)
        log_weights[s] = terms["x"] + terms["p_z"] - terms["q_z"]
    twin_estimate = scipy.special.logsumexp(log_weights, axis=0) - np.log(num_samples)
    ours = exports.loaded(prior).log_likelihood(images, num_samples, [2, 0])["log_likelihood"]
    np.testing.assert_allclose(ours, twin_estimate, rtol=1e-6)  # float32 against float64


@pytest.mark.parametrize("name", ["vamp", "hvae"])
def test_blocks_change_nothing_and_bound_what_is_decoded(name, images, monkeypatch):
    model, decoded = moved(name), []
    decoder = model.decoder

    def counting(*latents, training=False):
        rows = tf.numpy_function(
            lambda rows: decoded.append(int(rows)) or rows, [tf.size(latents[0]) // 3], tf.int32
        )
        with tf.control_dependencies([rows]):
            return decoder(*map(tf.identity, latents), training=training)

    monkeypatch.setattr(model, "decoder", counting)
    answers = {}
    for rows, expected_calls in ((7, {3: 3 + 4, 50: 3 + 8 * 8}), (10**6, {3: 2, 50: 2})):
        monkeypatch.setattr("tfvamp.blocks.ROWS", rows)
        functions = export.Functions(model)
        both = tf.function(
            lambda n, num_samples, seed, functions=functions: (
                functions.sample(n, seed)["images"],
                functions.log_likelihood(tf.constant(images), num_samples, seed)["log_likelihood"],
            ),
            autograph=False,
        )
        for num_samples, calls in expected_calls.items():
            decoded.clear()
            answers[rows, num_samples] = both(tf.constant(20), tf.constant(num_samples), tf.constant([7, 0]))
            assert sum(decoded) == 20 + num_samples * len(images)
            assert len(decoded) == calls and max(decoded) <= rows
    # float32; the weights of this HVAE are differences of densities of thousands of nats
    tolerance = 1e-5 if name == "hvae" else 2e-6
    for num_samples in (3, 50):
        for small, whole in zip(answers[7, num_samples], answers[10**6, num_samples], strict=True):
            np.testing.assert_allclose(small, whole, rtol=tolerance, atol=2e-6)


def test_no_images_and_one_image(exports, images):
    m = exports.loaded("vamp")
    assert m.log_likelihood(images[:0], 5, [0, 0])["log_likelihood"].shape == (0,)
    assert m.encode(images[:0])["loc"].shape == (0, 3)
    all_images = m.log_likelihood(images, 5, [0, 0])["log_likelihood"]
    np.testing.assert_allclose(
        m.log_likelihood(images[:1], 5, [0, 0])["log_likelihood"], all_images[:1], rtol=2e-6
    )


def test_the_prior_is_computed_once(monkeypatch):
    functions = export.Functions(moved("vamp"))
    for name in ("components", "distribution", "clipped_pseudo_inputs"):
        monkeypatch.setattr(
            type(functions.model.prior), name, lambda *_: pytest.fail("the prior was computed again")
        )
    for name, arguments in functions.signatures.items():
        tf.function(getattr(functions, name), autograph=False).get_concrete_function(*arguments)


BLACK = np.zeros([2, 6, 5, 1], np.float32)
BAD = [
    ("sample", {"n": 0, "seed": [0, 0]}, r"n must lie between 1 and 1118481; got\] \[0\]"),
    ("sample", {"n": -3, "seed": [0, 0]}, r"n must lie between 1 and 1118481; got\] \[-3\]"),
    ("sample", {"n": 1118482, "seed": [0, 0]}, "n must lie between 1 and 1118481"),
    ("sample_component", {"k": 5, "n": 1, "seed": [0, 0]}, r"k must lie between 0 and 4; got\] \[5\]"),
    ("sample_component", {"k": -1, "n": 1, "seed": [0, 0]}, r"k must lie between 0 and 4; got\] \[-1\]"),
    ("sample_component", {"k": 1, "n": 0, "seed": [0, 0]}, "n must lie between 1 and"),
    ("encode", {"images": BLACK + 1.01}, "images must lie between 0 and 1, without NaN"),
    ("encode", {"images": BLACK - 0.01}, "images must lie between 0 and 1, without NaN"),
    ("encode", {"images": BLACK * np.nan}, "images must lie between 0 and 1, without NaN"),
    ("reconstruct", {"images": BLACK * np.nan, "seed": [0, 0]}, "images must lie between 0 and 1"),
    ("decode", {"latents": np.array([[0, np.inf, 0]], np.float32)}, "latents must be finite"),
    ("log_likelihood", {"images": BLACK - 1, "num_samples": 2, "seed": [0, 0]}, "images must lie between"),
    (
        "log_likelihood",
        {"images": BLACK, "num_samples": 0, "seed": [0, 0]},
        r"num_samples must lie between 1 and 11184810; got\] \[0\]",
    ),
    ("log_likelihood", {"images": BLACK, "num_samples": 11184811, "seed": [0, 0]}, "num_samples must lie"),
]


@pytest.mark.parametrize("name, arguments, text", BAD)
def test_bad_input_is_an_error_with_a_name(exports, name, arguments, text):
    m = exports.loaded("vamp")
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        getattr(m, name)(**arguments)
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        m.signatures[name](**{key: tf.constant(value) for key, value in arguments.items()})


@pytest.mark.parametrize(
    "name, arguments, text",
    [
        ("sample", {"n": 2, "seed": [1, 2, 3]}, "seed"),
        ("sample", {"n": 2, "seed": 7}, "seed"),
        ("sample", {"n": [2], "seed": [0, 0]}, "n"),
        ("encode", {"images": np.zeros([2, 3, 10, 1], np.float32)}, "images"),  # as many pixels
        ("decode", {"latents": np.zeros([2, 6], np.float32)}, "latents"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_with_a_name(exports, name, arguments, text):
    m = exports.loaded("vamp")
    with pytest.raises(TypeError, match=f"name='{text}'"):
        getattr(m, name)(**arguments)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"Shape of tensor {text} .*not compatible"):
        m.signatures[name](**{key: tf.constant(value) for key, value in arguments.items()})


def letters(spec: dict, event_shape, num_components) -> str:
    """A dtype and shape as docs/export.md writes them."""
    shape, event = list(spec["shape"]), list(event_shape)
    sizes = {None: "B", 3: "D", 2: "2"}
    if shape[1:] == event:
        words = ["K" if shape[0] == num_components else sizes[shape[0]], "H", "W", "C"]
    else:
        words = [sizes[size] for size in shape]
    return f"{spec['dtype']} [{', '.join(words)}]"


def test_the_page_the_metadata_and_the_signatures_agree(exports):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    documented = {name: (arguments, gives) for name, arguments, gives in rows}
    for prior in PRIORS:
        document = json.loads((exports.folder(prior) / "assets.extra" / "tfvamp.json").read_text())
        described = document["signatures"]
        page = dict(documented)
        if prior in ("standard", "mog", "flow"):
            del page["pseudo_inputs"]
        if prior in ("standard", "flow"):
            del page["sample_component"]
        told = {
            name: tuple(
                ", ".join(
                    f"`{key}` {letters(spec, (6, 5, 1), 5)}" for key, spec in signature[direction].items()
                )
                for direction in ("inputs", "outputs")
            )
            for name, signature in described.items()
        }
        assert told == page
        proto = saved_model_pb2.SavedModel.FromString((exports.folder(prior) / "saved_model.pb").read_bytes())
        (graph,) = proto.meta_graphs
        signatures = dict(graph.signature_def)
        assert set(signatures) == {*described, "serving_default", "__saved_model_init_op"}
        for name, signature in [*described.items(), ("serving_default", described["sample"])]:
            for direction in ("inputs", "outputs"):
                assert {
                    key: {
                        "dtype": types_pb2.DataType.Name(info.dtype)
                        .replace("DT_", "")
                        .lower()
                        .replace("float", "float32"),
                        "shape": [None if size.size < 0 else size.size for size in info.tensor_shape.dim],
                    }
                    for key, info in getattr(signatures[name], direction).items()
                } == signature[direction]
        definitions = graph.graph_def.library
        operations = {node.op for function in definitions.function for node in function.node_def}
        random = {name for name in operations if "Random" in name}
        assert random == {"StatelessRandomUniformFullIntV2"}
        kinds = {node.user_object.identifier for node in graph.object_graph_def.nodes} - {""}
        assert kinds <= {"_generic_user_object", "trackable_list_wrapper", "signature_map"}
        assert all(key in export.DESCRIPTIONS for key in described)


def test_what_the_metadata_say_of_a_run(run, tmp_path, few_functions):
    document = export.export_run(run, tmp_path / "m")
    stored = json.loads((tmp_path / "m" / "assets.extra" / "tfvamp.json").read_text())
    assert document == stored
    assert stored["settings"]["components"] == 7 and not {"data_dir", "raw_dir"} & set(stored["settings"])
    assert stored["data"]["shape"] == [28, 28, 1] and stored["data"]["verified"] is True
    assert stored["evaluation"] == json.loads((run / "evaluation.json").read_text())
    assert stored["trained_with"]["tensorflow"] == stored["exported_with"]["tensorflow"] == tf.__version__
    assert stored["limits"] == {"n": 2**25 // 784, "num_samples": 2**25 // 4}
    assert "model.sample(n, s)" in stored["seeds"]
    assert str(run.parent) not in json.dumps(stored)
    m = tf.saved_model.load(tmp_path / "m")
    np.testing.assert_allclose(m.sample(3, [7, 0])["images"], runs.load(run).sample(3, 7), atol=2e-6)


def test_a_run_without_an_evaluation(run, tmp_path, few_functions):
    shutil.copytree(run, tmp_path / "r")
    (tmp_path / "r" / "evaluation.json").unlink()
    assert export.export_run(tmp_path / "r", tmp_path / "m")["evaluation"] is None


def test_the_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, few_functions):
    model, output = moved("mog"), tmp_path / "m"
    output.mkdir()  # an empty folder is free
    export.export(model, output)
    (output / "mark").touch()
    with pytest.raises(RunError, match=r"m exists: choose another --output, or replace it with --overwrite"):
        export.export(model, output)
    with monkeypatch.context() as patched:

        def no_space(*_, **__):
            raise OSError(28, "No space left on device")

        patched.setattr(tf.saved_model, "save", no_space)
        with pytest.raises(RunError, match=r"cannot write .*m \(No space left on device\): choose another"):
            export.export(model, output, overwrite=True)
    assert (output / "mark").exists() and [path.name for path in tmp_path.iterdir()] == ["m"]
    export.export(moved("vamp"), output, overwrite=True)
    assert not (output / "mark").exists() and [path.name for path in tmp_path.iterdir()] == ["m"]
    m = tf.saved_model.load(output)
    assert m.pseudo_inputs()["images"].shape == (5, 6, 5, 1)


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch, few_functions
):
    """In the one step that exchanges them, and in the two of a disk that cannot."""
    output, rename = tmp_path / "m", files.os.rename
    export.export(moved("mog"), output)

    def broken(*_):
        raise OSError(5, "Input/output error")

    def refuse(source, target):
        if pathlib.Path(source).name == "new" and str(target) == str(output):
            broken()
        rename(source, target)

    for exchange in (broken, lambda *_: False):
        monkeypatch.setattr(files, "_exchange", exchange)
        monkeypatch.setattr(files.os, "rename", refuse)
        with pytest.raises(RunError, match="Input/output error"):
            export.export(moved("mog"), output, overwrite=True)
        m = tf.saved_model.load(output)
        assert m.sample(1, [0, 0])["images"].shape == (1, 6, 5, 1)
        assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_saved_model_stays(tmp_path, overwrite, few_functions):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("m", "file"):
        with pytest.raises(RunError, match=f"{name} exists and is not a SavedModel: choose another --output"):
            export.export(moved("mog"), tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "m" / "thesis.tex").exists()
    with pytest.raises(RunError, match=r"cannot write .* \(File exists\)"):
        export.export(moved("mog"), tmp_path / "file" / "m")


@pytest.mark.parametrize("name", ["vamp", "convvae", "hvae"])
def test_onnx_equals_the_model_for_any_batch(name, tmp_path, images, few_functions):
    import onnxruntime

    model = moved(name)
    export.export(model, tmp_path / "m", onnx=True)
    sessions = {
        name: onnxruntime.InferenceSession(tmp_path / "m" / "assets.extra" / f"{name}.onnx")
        for name in ("encode", "decode")
    }
    latents = np.random.default_rng(2).normal(size=(11, 3)).astype(np.float32)
    for count in (1, 8):
        loc, log_variance = sessions["encode"].run(["loc", "log_variance"], {"images": images[:count]})
        posterior = model.encoder(images[:count])
        np.testing.assert_allclose(loc, posterior.loc, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_variance, posterior.log_variance, rtol=1e-5, atol=1e-5)
        z = latents[: count + 3]
        (pictures,) = sessions["decode"].run(["images"], {"latents": z})
        expected = model.pictures(model.generate(z), seeds.stateless(0))
        np.testing.assert_allclose(pictures, expected, rtol=1e-5, atol=1e-5)
        if not model.levels:
            np.testing.assert_allclose(pictures, model.decoder(z).mean(), rtol=1e-5, atol=1e-5)
    for session in sessions.values():
        assert [len(session.get_inputs()), session.get_inputs()[0].type] == [1, "tensor(float)"]


def test_onnx_without_tf2onnx(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    result = tfvamp_command("export", run, "--output", tmp_path / "m", "--onnx")
    assert result.exit_code == 2
    assert result.stderr == "tfvamp: --onnx needs tf2onnx: pip install 'tfvamp[onnx]'\n"
    with pytest.raises(UsageError, match="--onnx needs tf2onnx"):
        export.export(moved("mog"), tmp_path / "m", onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_command(run, exports, tmp_path):
    for arguments, code, text in [
        (["nowhere", "--output", tmp_path / "m"], 1, "there is no run folder nowhere"),
        ([run], 2, "Missing option '--output'"),
        (
            [run, "--output", exports.folder("vamp")],
            1,
            "exists: choose another --output, or replace it with --ov",
        ),
        ([run, "--output", run, "--overwrite"], 1, "exists and is not a SavedModel: choose another"),
    ]:
        result = tfvamp_command("export", *arguments)
        assert result.exit_code == code and text in result.stderr and result.stdout == ""
        assert "Traceback" not in result.output
    shutil.copytree(run, tmp_path / "r")
    (tmp_path / "r" / "best" / "model.weights.h5").unlink()
    result = tfvamp_command("export", tmp_path / "r", "--output", tmp_path / "m")
    assert result.exit_code == 1 and "the run has not finished an epoch yet" in result.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_the_page_works_in_a_process_of_its_own(run):
    """Its command, its Python with TensorFlow alone, its way to TensorFlow Lite; no chatter on the way."""
    work = run.parent.parent
    command = [sys.executable, "-m", "tfvamp_cli.main", "export", "runs/first", "--output", "export/tfvamp/1"]
    done = subprocess.run([*command, "--onnx"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == (
        "wrote export/tfvamp/1 (sample, sample_component, encode, decode, reconstruct, log_likelihood, "
        "pseudo_inputs, encode.onnx, decode.onnx). Next: tfvamp serve export/tfvamp/1\n"
    )
    use, lite = blocks(PAGE, "python")
    lite += """
import numpy as np
m = tf.saved_model.load("export/tfvamp/1")
interpreter = tf.lite.Interpreter(model_path="encode.tflite")
images = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)
for key, value in interpreter.get_signature_runner("encode")(images=images).items():
    np.testing.assert_allclose(value, m.encode(images)[key], atol=1e-5)
"""
    # One process for both, each with names of its own.
    code = f"exec({use!r}, {{}})\nexec({lite!r}, {{}})"
    done = subprocess.run([sys.executable, "-c", ALONE + code], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("(16, 28, 28, 1) (16, 4) (16, 28, 28, 1) -")
