"""The command line: help without TensorFlow, the whole path on small data, errors and exit codes."""

import json
import re
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from click.testing import CliRunner

import tfvamp.config
import tfvamp.datasets
from tests import made
from tests.made import caltech
from tests.test_datasets import NAME
from tfvamp_cli import light
from tfvamp_cli.main import COMMANDS, main

pytestmark = pytest.mark.usefixtures("eager")


def tfvamp_command(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


SMALL = (
    "--components", 7, "--hidden-units", 12, "--epochs", 2, "--warmup", 2, "--limit", 60, "--batch-size", 30, "--no-jit",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    path = tmp_path_factory.mktemp("runs") / "first"
    tf.config.run_functions_eagerly(True)
    result = tfvamp_command("train", *SMALL, "--data-dir", data_dir, "--run-dir", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip().startswith("2 epochs, best ")
    assert result.stdout.strip().endswith(f"Next: tfvamp evaluate {path}")
    tf.config.run_functions_eagerly(False)
    return path


def test_options_of_training_are_the_fields_of_its_settings():
    options = {option.name: option for option in main.get_command(None, "train").params}
    for field, _ in tfvamp.config.fields():
        if not field.metadata["option"]:  # of a TOML file alone
            assert field.name not in options
            continue
        assert options[field.name].default == field.default, field.name
        assert field.metadata["help"] in options[field.name].help
    assert light.config.TrainConfig().to_dict() == tfvamp.config.TrainConfig().to_dict()


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help_imports_no_tensorflow(arguments):
    code = (
        "import sys\n"
        "from tfvamp_cli.main import main\n"
        f"main({[*arguments, '--help']!r}, standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'tfvamp', 'numpy', 'tensorflow_datasets', 'matplotlib', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout and ("Examples:" in result.stdout or arguments != ["train"])


def test_every_option_of_every_command_has_a_help_text():
    for name in COMMANDS:
        command = main.get_command(None, name)
        assert command.help and len(COMMANDS[name]) < 90
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, (name, parameter.name)


def test_version():
    result = tfvamp_command("--version")
    assert result.exit_code == 0 and result.output.startswith("tfvamp 0.")


def test_evaluate(run):
    result = tfvamp_command("evaluate", run, "--proposal", "encoder", "--samples", 10, "--limit", 5)
    assert result.exit_code == 0, result.output
    assert "log-likelihood" in result.stdout and "effective sample size" in result.stdout
    assert f"wrote {run}/evaluation.json and {run}/log_likelihood.npz" in result.stdout
    assert json.loads((run / "evaluation.json").read_text())["num_samples"] == 10


def test_evaluate_with_refined_proposals_shows_both(run):
    """As it does without a proposal, too."""
    refined = (
        "--refine-steps",
        4,
        "--refine-step-size",
        0.05,
        "--refine-samples",
        2,
    )
    result = tfvamp_command("evaluate", run, "--samples", 30, "--limit", 5, *refined)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name in ("log-likelihood, refined", "log-likelihood, encoder", "with fewer samples, encoder"):
        assert sum(line.strip().startswith(name) for line in lines) == 1, result.stdout
    document = json.loads((run / "evaluation.json").read_text())
    own = document["encoder"]
    assert (document["proposal"], own["proposal"], own["num_samples"]) == ("refined", "encoder", 30)
    assert document["amortisation_gap"] == pytest.approx(document["elbo"] - own["elbo"])
    assert f"{document['log_likelihood']:.3f} nats" in result.stdout
    with np.load(run / "log_likelihood.npz", allow_pickle=False) as stored:
        assert stored["encoder_log_likelihood"].mean() == pytest.approx(own["log_likelihood"])
    info = tfvamp_command("info", run)
    assert info.exit_code == 0 and tfvamp.Run(run).evaluation()["current"]
    result = tfvamp_command("evaluate", run, "--proposal", "refind")
    assert result.exit_code == 2 and "Did you mean 'refined'?" in result.stderr
    for words, text in (
        (("--proposal", "encoder", "--refine-steps", 5), "--refine-steps goes with --proposal refined"),
        (("--proposal", "refined", "--refine-steps", 0), "refine_steps must be at least 1; got 0"),
        (("--proposal", "refined", "--refine-samples", -1), "refine_samples must be at least 1; got -1"),
        (("--proposal", "refined", "--refine-samples", 10**6), "refine_samples must be at most 2500"),
        (("--proposal", "refined", "--refine-steps", 10**9), "GiB"),
        *(
            (("--proposal", "refined", "--refine-step-size", bad), "must be a positive number")
            for bad in (0, -1, "nan", "inf")
        ),
    ):
        result = tfvamp_command("evaluate", run, *words)
        assert result.exit_code == 2 and text in " ".join(result.stderr.split()), result.stderr
    assert document == json.loads((run / "evaluation.json").read_text())


def test_sample_png_and_npz(run, tmp_path):
    for name in ("s.png", "s.npz"):
        words = ("-n", 6, "--seed", 7, "--no-title", "--output", tmp_path / name)
        result = tfvamp_command("sample", run, *words)
        assert result.stderr == ("--no-title: no effect on arrays\n" if name == "s.npz" else "")
        assert result.exit_code == 0 and result.stdout.strip() == f"wrote 6 images to {tmp_path / name}"
    picture = matplotlib.image.imread(tmp_path / "s.png")
    assert picture.shape[:2] == (3 * (2 * 29 + 1), 3 * (3 * 29 + 1))
    with np.load(tmp_path / "s.npz", allow_pickle=False) as stored:
        images = stored["images"]
    assert images.shape == (6, 28, 28, 1)
    np.testing.assert_array_equal(images, tfvamp.load(run).sample(6, 7))
    tfvamp_command("sample", run, "-n", 6, "--component", 3, "--draw", "--output", tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["images"], tfvamp.load(run).sample(6, 0, component=3, draw=True))


def test_encode(run, tmp_path):
    result = tfvamp_command("encode", run, "--output", tmp_path / "z.npz")
    assert result.exit_code == 0 and "mean [60, 40], log_variance [60, 40], label [60]" in result.stdout
    model, data = (
        tfvamp.load(run),
        tfvamp.datasets.load("mnist5k", tfvamp.load(run).train_config.data_dir, limit=60),
    )
    images, labels = data.test.array()
    with np.load(tmp_path / "z.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["mean"], model.encoder(images).loc, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            stored["log_variance"], model.encoder(images).log_variance, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(stored["label"], labels)


def test_plot(run):
    tfvamp_command("evaluate", run, "--proposal", "encoder", "--samples", 10, "--limit", 5)
    result = tfvamp_command("plot", run)
    assert result.exit_code == 0, result.output
    names = ["curves", "samples", "reconstructions", "map", "pseudo_inputs", "components"]
    names += ["traversal", "interpolation", "log_likelihood"]
    assert result.stdout.split() == [f"{run}/figures/{name}.png" for name in names]
    for path in result.stdout.split():
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 200 and picture[..., :3].std() > 0.05


def test_info(run):
    result = tfvamp_command("info", run)
    assert result.exit_code == 0 and "prior vamp, K = 7" in result.stdout and "best epoch" in result.stdout


def test_doctor():
    result = tfvamp_command("doctor")
    assert result.exit_code == 0, result.output
    for word in ("tensorflow", "devices", "used for training", "prepared data", "mnist5k"):
        assert word in result.stdout


def test_resume(run, tmp_path, data_dir):
    path = tmp_path / "r"
    assert tfvamp_command("train", *SMALL, "--data-dir", data_dir, "--run-dir", path).exit_code == 0
    result = tfvamp_command("train", "--resume", path, "--epochs", 3)
    assert result.exit_code == 0 and result.stdout.startswith("3 epochs, best ")
    result = tfvamp_command("train", "--resume", path, "--prior", "mog")
    assert (
        result.exit_code == 2 and "--resume takes the run's own settings; leave out --prior" in result.stderr
    )


def test_what_resume_refuses_and_takes(run, tmp_path, data_dir):
    path = tmp_path / "r"
    assert tfvamp_command("train", *SMALL, "--data-dir", data_dir, "--run-dir", path).exit_code == 0
    for more in (["--run-dir", "x"], ["--overwrite"], ["--no-jit"], ["--preset", "paper"], ["--seed", "1"]):
        assert tfvamp_command("train", "--resume", path, *more).exit_code == 2, more
    assert tfvamp_command("train", "--resume", path, "--data-dir", data_dir).exit_code == 0


def test_unverified_data_are_reported_and_recorded(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    scipy.io.savemat(raw / NAME, caltech())
    folders = ["--data-dir", tmp_path / "data", "--raw-dir", raw]
    small = ["--dataset", "caltech101", "--prior", "standard", "--epochs", 1, "--no-jit"]
    result = tfvamp_command("train", *small, *folders, "--run-dir", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert "warning: the source files of caltech101 are not the published ones" in result.stderr
    result = tfvamp_command("evaluate", tmp_path / "r", "--proposal", "encoder", "--samples", 2)
    assert "data verified          no: not known to be the published files" in result.stdout
    assert json.loads((tmp_path / "r" / "evaluation.json").read_text())["dataset_verified"] is False
    (raw / NAME).write_bytes(b"cut")
    result = tfvamp_command("train", *small, *folders, "--run-dir", tmp_path / "s")
    assert result.exit_code == 1 and "cannot be read as a Matlab 5 file" in result.stderr


def test_nan_and_too_many_components(data_dir, tmp_path, monkeypatch):
    where = ["--data-dir", data_dir, "--run-dir", tmp_path / "r"]
    result = tfvamp_command("train", *SMALL, "--prior", "vamp-data", "--components", 61, *where)
    assert result.exit_code == 2 and "K = 61 pseudo-inputs cannot be taken from 60" in result.stderr
    assert not (tmp_path / "r").exists()
    result = tfvamp_command("train", *SMALL, "--learning-rate", "1e38", *where)
    assert result.exit_code == 1
    assert re.search(
        r"the loss and .* became NaN or infinite in epoch 1, step \d \(no weights were saved in",
        result.stderr,
    )
    assert "try a smaller --learning-rate" in result.stderr
    assert (tmp_path / "r" / "tensorflow.log").is_file()


def test_help_of_commands_and_of_the_group_agree():
    for name, text in COMMANDS.items():
        assert main.get_command(None, name).help.splitlines()[0] == text


def test_quiet_shows_only_the_result(data_dir, tmp_path):
    result = tfvamp_command("--quiet", "train", *SMALL, "--data-dir", data_dir, "--run-dir", tmp_path / "r")
    assert result.exit_code == 0 and result.stderr == "" and len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (
            ["train", "--dataset", "caltech10"],
            2,
            "unknown data set 'caltech10'. Did you mean 'caltech101'? Choose one of: ",
        ),
        (["train", "--prior", "vam"], 2, "unknown prior 'vam'. Did you mean 'vamp'?"),
        (["train", "--model", "gan"], 2, "unknown model 'gan'. Choose one of: vae"),
        (["train", "--components", "0"], 2, "components must be at least 1; got 0"),
        (["train", "--preset", "papers"], 2, "unknown preset 'papers'. Did you mean 'paper'?"),
        (["train", "--resume", "nowhere"], 1, "there is no run folder nowhere"),
        (["train", "--raw-dir", "nowhere"], 1, "there is no raw-data folder nowhere"),
        (["evaluate", "nowhere"], 1, "there is no run folder nowhere"),
        (["evaluate"], 2, "Missing argument 'RUN'"),
        (
            ["sample", "nowhere", "--output", "a.jpg"],
            2,
            "--output must end with one of .png, .pdf, .svg, .npz; got a.jpg",
        ),
        (["encode", "nowhere", "--output", "a.csv"], 2, "--output must end with .npz; got a.csv"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_errors_are_one_line_on_standard_error(arguments, code, text):
    result = tfvamp_command(*arguments)
    assert result.exit_code == code
    assert text in result.stderr and "Traceback" not in result.output and result.stdout == ""


def test_errors_of_a_run(run, tmp_path):
    result = tfvamp_command("sample", run, "-n", 0, "--output", tmp_path / "a.png")
    assert (
        result.exit_code == 2 and result.stderr == "tfvamp: the number of samples must be at least 1; got 0\n"
    )
    result = tfvamp_command("sample", run, "--component", 7, "--output", tmp_path / "a.png")
    assert result.exit_code == 2 and "the prior has components 0 to 6; got 7" in result.stderr
    result = tfvamp_command("evaluate", run, "--split", "tset")
    assert result.exit_code == 2 and "unknown split 'tset'. Did you mean 'test'?" in result.stderr
    result = tfvamp_command("train", *SMALL, "--run-dir", run)
    assert result.exit_code == 1 and "--overwrite" in result.stderr


def test_unexpected_errors_are_one_line_without_debug(monkeypatch, tmp_path):
    def explode(*_, **__):
        raise RuntimeError("boom\nbang")

    monkeypatch.setattr("tfvamp.runs.load", explode)
    result = tfvamp_command("sample", tmp_path, "--output", "a.png")
    assert result.exit_code == 1
    assert (
        result.stderr == "tfvamp: RuntimeError: boom bang (unexpected; tfvamp --debug shows the traceback)\n"
    )
    debugged = tfvamp_command("--debug", "sample", tmp_path, "--output", "a.png")
    assert isinstance(debugged.exception, RuntimeError)


@pytest.mark.slow
def test_no_chatter_and_ctrl_c_in_a_process_of_its_own(data_dir, tmp_path):
    command = [sys.executable, "-m", "tfvamp_cli.main", "train", *map(str, SMALL), "--data-dir", data_dir]
    process = subprocess.Popen(
        [*command, "--epochs", "100000", "--patience", "100000", "--run-dir", str(tmp_path / "r")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (tmp_path / "r" / "history.csv").exists():
            break
        time.sleep(0.2)
    process.send_signal(2)
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert re.search(
        r"stopped: \d+ whole epochs?( and \d+ steps?)? saved\. Go on with: tfvamp train --resume", stderr
    )
    for chatter in ("cuda", "oneDNN", "WARNING", "absl", "Traceback"):
        assert chatter not in stderr + stdout
    assert (tmp_path / "r" / "tensorflow.log").is_file()
    rows = len((tmp_path / "r" / "history.csv").read_text().splitlines()) - 1
    again = tfvamp_command("train", "--resume", tmp_path / "r", "--epochs", rows + 1)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith(f"{rows + 1} epochs")


def test_datasets_list_shows_all(tmp_path):
    result = tfvamp_command("datasets", "list", "--data-dir", tmp_path)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(tfvamp.datasets.CATALOG) < set(rows)
    assert (
        "28x20x1" in rows["frey_faces"]
        and "1565/200/200" in rows["frey_faces"]
        and " no " in rows["frey_faces"]
    )
    assert "logistic" in rows["cifar10"] and "bernoulli, dynamic" in rows["omniglot"]


def test_datasets_prepare_and_info(tmp_path):
    raw = made.make("frey_faces", tmp_path / "raw")
    folders = ["--data-dir", tmp_path / "data", "--raw-dir", raw]
    result = tfvamp_command("datasets", "prepare", "frey_faces", *folders)
    assert result.exit_code == 0 and result.stderr.startswith("preparing frey_faces in ")
    assert result.stdout == (
        "frey_faces is prepared: 9/200/200 images (verified: no: not known to be the published files). "
        f"Next: tfvamp train --dataset frey_faces --data-dir {tmp_path / 'data'}\n"
    )
    assert tfvamp_command("datasets", "prepare", "frey_faces", *folders).stderr == ""  # nothing is done twice
    assert " yes " in tfvamp_command("datasets", "list", "--data-dir", tmp_path / "data").stdout
    result = tfvamp_command(
        "datasets", "info", "frey_faces", *folders[:2], "--picture", tmp_path / "faces.png"
    )
    assert result.exit_code == 0 and (tmp_path / "faces.png").read_bytes()[:4] == b"\x89PNG"
    assert re.search(r"train +9 images, bytes from 0 to 255, mean ", result.stdout)
    assert re.search(r"sha256 of freyfaces.pkl +[0-9a-f]{64}", result.stdout)
    assert re.search("verified +no", result.stdout)
    next((tmp_path / "data").rglob("dataset_info.json")).write_text("{")
    listed = tfvamp_command("datasets", "list", "--data-dir", tmp_path / "data")
    assert listed.exit_code == 0 and re.search("frey_faces .* damaged ", listed.stdout)


def test_grey_images_from_the_command_line(tmp_path):
    """Training on your own images, the line that says why the likelihood is what it is, and what is refused."""
    path = tmp_path / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (30, 7, 5)).astype(np.uint8))
    small = ["--components", 3, "--epochs", 1, "--warmup", 1, "--no-jit", "--run-dir", tmp_path / "run"]
    result = tfvamp_command("train", "--dataset", f"npz:{path}", *small)
    assert result.exit_code == 0, result.stderr
    assert "likelihood logistic, because the pixels have many levels" in " ".join(result.stderr.split())
    assert (
        "data" in (info := tfvamp_command("info", tmp_path / "run").stdout) and "unknown: no checksum" in info
    )
    assert tfvamp_command("sample", tmp_path / "run", "-n", 4, "--output", tmp_path / "s.png").exit_code == 0
    result = tfvamp_command(
        "train", "--dataset", f"npz:{path}", "--likelihood", "bernoulli", *small[:-1], tmp_path / "b"
    )
    assert result.exit_code == 2 and "the likelihood bernoulli does not fit npz:x.npz" in result.stderr
    result = tfvamp_command("train", "--dataset", "npz:nowhere.npz")
    assert result.exit_code == 1 and result.stderr == "tfvamp: there is no file nowhere.npz\n"
    result = tfvamp_command("train", "--dataset", "folder:.")
    assert result.exit_code == 2 and "needs --image-size HxW" in result.stderr
