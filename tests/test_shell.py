"""Commands as a shell sees them: paths, pipes, signals, exit statuses, settings from files, a broken installation."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow_probability import distributions as tfd

import tfvamp
from tfvamp import devices, files, training
from tfvamp.errors import UsageError
from tfvamp.runs import Run
from tfvamp.training import loop
from tfvamp_cli import output
from tfvamp_cli.main import main

SMALL = (
    "--components", 3, "--hidden-units", 4, "--latent-dims", 2, "--epochs", 2, "--warmup", 1, "--limit", 20,
    "--batch-size", 20, "--no-jit",
)  # fmt: skip


def command(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def process(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


# --- settings ---


def test_a_mistyped_command_gets_a_suggestion():
    result = command("trian")
    assert result.exit_code == 2 and "No such command 'trian'. Did you mean 'train'?" in result.stderr
    result = command("datasets", "lst")
    assert result.exit_code == 2 and "No such command 'lst'. Did you mean 'list'?" in result.stderr


def test_typing_errors_need_no_tensorflow():
    code = (
        "import sys\n"
        "from tfvamp_cli.main import main\n"
        "try: main({words!r})\n"
        "except SystemExit as end: code = end.code\n"
        "assert code == 2 and 'tensorflow' not in sys.modules and 'tfvamp' not in sys.modules\n"
    )
    words = (
        ["train", "--dataset", "caltec"],
        ["train", "--epochs", "0"],
        ["train", "--image-size", "x"],
        ["evaluate", "r", "--split", "tset"],
        ["evaluate", "r", "--dataset", "caltec"],
        ["encode", "r", "--output", "z.npz", "--split", "tset"],
        ["trian"],
    )
    result = process("\n".join(code.format(words=one) for one in words))
    assert result.returncode == 0, result.stderr
    assert len(
        [line for line in result.stderr.splitlines() if line.startswith(("tfvamp:", "Error:"))]
    ) == len(words)


def test_what_is_not_there_is_said_without_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from tfvamp_cli.main import main\n"
        "try: main({words!r})\n"
        "except SystemExit as end: pass\n"
        "assert 'tensorflow' not in sys.modules and 'tfvamp' not in sys.modules\n"
    )
    commands = {
        "evaluate r": "no run folder r",
        "diagnose r": "no run folder r",
        "sample r --output s.png": "no run folder r",
        "encode r --output z.npz": "no run folder r",
        "export r --output e": "no run folder r",
        "plot r": "no run folder r",
        "info r": "no run folder r",
        "report r": "no run folder r",
        "compare r": "no run folder r",
        "rate-distortion r": "no run folder r",
        f"compare {tmp_path} --baseline r": "no run folder r",
        f"report {tmp_path} --baseline r --output {tmp_path}/r.html": "no run folder r",
        "sweep r.toml": "cannot read r.toml",
        "train --resume r": "no run folder r",
        "train --dataset folder:r --image-size 8x8": "no folder r",
        "train --dataset npz:r": "no file r",
        f"diagnose {tmp_path} --dataset npz:r": "no file r",
        "datasets info folder:r": "no folder r",
        f"train --dataset folder:{tmp_path}": "folder: needs --image-size",
        "serve r": "r is not a SavedModel",
    }
    result = process("\n".join(code.format(words=words.split()) for words in commands))
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("tfvamp:")]
    for line, text in zip(lines, commands.values(), strict=True):
        assert text in line


def test_one_image_and_two_images():
    assert [files.counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_settings_come_from_a_file_and_flags_win(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        training, "train", lambda config, *rest, **how: seen.append((config, rest[0])) or 1 / 0
    )
    printed = command("train", *SMALL, "--prior", "mog", "--print-config", "--run-dir", "~/x")
    assert printed.exit_code == 0 and "# learning_rate =   # 0.0005 by default" in printed.stdout and not seen
    (tmp_path / "a.toml").write_text(printed.stdout)
    command("train", "--config", tmp_path / "a.toml", "--components", 9, "--no-jit")
    (config, run_dir), *_ = seen
    assert (config.prior, config.components, config.epochs, config.jit, run_dir) == (
        "mog",
        9,
        2,
        False,
        "~/x",
    )
    command("train", "--config", tmp_path / "a.toml", "--run-dir", "y", "--preset", "paper")
    assert seen[1][1] == "y" and seen[1][0].learning_rate == 0.0005
    for text, error in (
        ("epoch = 3", "unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 0", "epochs must be at least 1; got 0"),
        ("epochs = '3'", "epochs must be of type int; got '3'"),
        ("run_dir = 3", "run_dir and preset must be texts"),
        ("epochs", "is not TOML"),
    ):
        (tmp_path / "b.toml").write_text(text)
        result = command("train", "--config", tmp_path / "b.toml")
        assert result.exit_code == 2 and error in result.stderr, result.stderr
    assert "No such file" in command("train", "--config", tmp_path / "none.toml").stderr


def test_a_dry_run_measures_and_writes_nothing(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command("train", *SMALL, "--prior", "standard", "--data-dir", data_dir, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"hidden-units +4\n", result.stdout) and re.search(
        r"learning-rate +0.0005\n", result.stdout
    )
    count = re.search(r"parameters +([\d,]+): encoder ([\d,]+), decoder ([\d,]+)\n", result.stdout)
    assert int(count[1].replace(",", "")) == sum(
        int(number.replace(",", "")) for number in count.groups()[1:]
    )
    assert re.search(r"memory +about [\d.]+ [KM]iB", result.stdout)
    assert re.search(r"one epoch +[\d.]+ minutes, 1 step and the validation", result.stdout)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    result = command("train", *SMALL, "--run-dir", "taken", "--dry-run")
    assert result.exit_code == 1 and "taken exists and is not a run folder" in result.stderr


@pytest.mark.usefixtures("eager")
def test_options_without_effect_are_said(data_dir, tmp_path):
    result = command(
        "train", *SMALL, "--prior", "standard", "--data-dir", data_dir, "--run-dir", tmp_path / "r"
    )
    assert result.exit_code == 0
    text = " ".join(result.stderr.split())
    assert "a setting has no effect: components: the prior standard is no mixture" in text
    assert Run(tmp_path / "r").config.components == 3


@pytest.mark.usefixtures("eager")
def test_device_and_mixed_precision(data_dir, tmp_path):
    """Layers in float16 with a loss that is scaled; densities and weights in float32; resumed as if never stopped."""
    small = [*SMALL, "--data-dir", data_dir, "--mixed-precision", "--device", "cpu"]
    assert command("train", *small, "--run-dir", tmp_path / "whole").exit_code == 0
    assert command("train", *small, "--epochs", 1, "--run-dir", tmp_path / "r").exit_code == 0
    result = command("train", "--resume", tmp_path / "r", "--epochs", 2, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    rows, whole = Run(tmp_path / "r").rows(), Run(tmp_path / "whole").rows()
    assert [row["val_elbo"] for row in rows] == [row["val_elbo"] for row in whole]
    model = Run(tmp_path / "r").model()
    assert model.encoder.compute_dtype == "float16" and model.encoder.variable_dtype == "float32"
    assert model.encoder(np.zeros((1, 28, 28, 1), np.float32)).dtype == "float32"
    assert (
        command(
            "evaluate", tmp_path / "r", "--proposal", "encoder", "--samples", 2, "--device", "cpu"
        ).exit_code
        == 0
    )
    for words in (["train", *small[:-1], "gpu:7"], ["evaluate", tmp_path / "r", "--device", "gpu:7"]):
        result = command(*words)
        assert result.exit_code == 2 and "there is no device gpu:7: TensorFlow sees" in result.stderr


def test_products_of_float32_are_products_of_float32():
    """On a GPU, TensorFlow takes factors of ten bits unless it is told not to; what was set before is set again after an error, too."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    assert enabled()
    with devices.on("cpu"):
        assert not enabled()
    assert enabled()
    with pytest.raises(UsageError, match="gpu:7"), devices.on("gpu:7"):
        pass
    assert enabled()
    seen = []

    class Posterior(Exception):
        """Ends the estimate."""

    class Model:
        prior = tfd.MultivariateNormalDiag([0.0])
        likelihood = None

        def posterior(self, x):
            seen.append(enabled())
            raise Posterior

    with pytest.raises(Posterior):
        tfvamp.log_likelihood(Model(), np.zeros((2, 6, 5, 1), np.float32), num_samples=2)
    assert seen == [False] and enabled()


# --- paths ---


@pytest.mark.usefixtures("eager")
def test_home_in_every_path_and_paths_that_can_be_pasted(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    shutil.copytree(data_dir, tmp_path / "home" / "data")
    result = command("train", *SMALL, "--data-dir", "~/data", "--run-dir", "~/runs/a b")
    assert result.exit_code == 0, result.stderr
    pasted = shlex.split(result.stdout.split("Next: ")[1])
    assert pasted == ["tfvamp", "evaluate", str(tmp_path / "home" / "runs" / "a b")]
    assert command(*pasted[1:], "--samples", 2, "--proposal", "encoder").exit_code == 0
    for words in (
        ("sample", "~/runs/a b", "-n", 2, "--output", "~/out/s 1.png"),
        ("encode", "~/runs/a b", "--output", "~/out/z.npz"),
        ("export", "~/runs/a b", "--output", "~/out/export/1"),
        ("plot", "~/runs/a b"),
        ("info", "~/runs/a b"),
        ("train", "--resume", "~/runs/a b", "--data-dir", "~/data"),
        ("datasets", "info", "mnist5k", "--data-dir", "~/data", "--picture", "~/out/p.png"),
    ):
        result = command(*words)
        assert result.exit_code == 0, (words, result.stderr)
    names = {path.name for path in (tmp_path / "home" / "out").iterdir()}
    assert names == {"s 1.png", "z.npz", "export", "p.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


@pytest.mark.parametrize(
    "name, text",
    [
        (".", "must not be the current folder"),
        ("", "must not be the current folder"),
        ("x" * 300, "File name too long"),
        (os.fsdecode(b"a\xff"), "is not UTF-8"),
        ("file/run", "Not a directory|cannot make the run folder"),
        ("file", "exists and is not a run folder"),
    ],
)
def test_names_that_no_run_folder_can_have(name, text, tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    result = command("train", *SMALL, "--data-dir", data_dir, "--run-dir", name)
    assert result.exit_code in (1, 2) and re.search(text, result.stderr), result.stderr
    assert "unexpected" not in result.stderr and len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(run, tmp_path):
    tmp_path.chmod(0o500)
    result = command("sample", run, "-n", 1, "--output", tmp_path / "s.png")
    assert (
        result.exit_code == 1 and "Permission denied" in result.stderr and "unexpected" not in result.stderr
    )


def test_folders_that_nobody_can_write_are_one_line(run):
    """/proc takes no files, not even from root."""
    for words in (
        ("sample", run, "-n", 1, "--output", "/proc/tfvamp/s.png"),
        ("encode", run, "--limit", 2, "--output", "/proc/tfvamp/z.npz"),
        ("export", run, "--output", "/proc/tfvamp/export"),
        ("train", *SMALL, "--run-dir", "/proc/tfvamp/run", "--data-dir", Run(run).config.data_dir),
        (
            "datasets",
            "info",
            "mnist5k",
            "--data-dir",
            Run(run).config.data_dir,
            "--picture",
            "/proc/tfvamp/p.png",
        ),
    ):
        result = command(*words)
        assert result.exit_code == 1 and "unexpected" not in result.stderr, (words, result.stderr)
        assert len([line for line in result.stderr.splitlines() if line.startswith("tfvamp: ")]) == 1


@pytest.mark.usefixtures("eager")
def test_a_run_folder_that_is_removed_while_it_is_trained(small_config, tmp_path, monkeypatch):
    real = loop.epoch_of

    def epoch(number, *rest):
        if number == 2:
            shutil.rmtree(tmp_path / "run")
        return real(number, *rest)

    monkeypatch.setattr(loop, "epoch_of", epoch)
    with pytest.raises(loop.RunError, match="the run folder .*run was removed while it was trained"):
        training.train(small_config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# --- signals and pipes ---


@pytest.fixture
def heard():
    """Signals do what they do by default, also where the tests run in the background or under nohup."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, default) for number, default in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("eager", "heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_have_their_exit_status(number, data_dir, tmp_path, monkeypatch):
    step = loop.Progress.step

    def shown(self, epoch, count=1):
        step(self, epoch, count)
        if epoch == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(loop.Progress, "step", shown)
    result = command("train", *SMALL, "--data-dir", data_dir, "--run-dir", tmp_path / "r")
    assert result.exit_code == 128 + number
    assert (
        f"stopped: 1 whole epoch and 1 step saved. Go on with: tfvamp train --resume {tmp_path}/r"
        in result.stderr
    )
    monkeypatch.setattr("tfvamp.runs.load", lambda run: signal.raise_signal(number))
    result = command("sample", tmp_path / "r", "--output", tmp_path / "s.png")
    assert result.exit_code == 128 + number and result.stderr == "tfvamp: interrupted\n"


def test_a_hang_up_that_is_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with loop.Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            interrupts.check()
        command("info", "nowhere")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_has_seen_enough_is_no_error():
    """`tfvamp doctor | head -0`: the pipe is closed before anything is written."""
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.dup2(write, 1); os.close(write); os.close(read)\n"
        "from tfvamp_cli import main as module\n"
        "import click\n"
        "@click.command()\n"
        "def command():\n"
        "    for _ in range(9999): click.echo('line')\n"
        "module.COMMANDS['many'] = 'Many lines.'\n"
        "module.LazyGroup.get_command = lambda self, ctx, name: command\n"
        "module.main(['many'])\n"
    )
    result = process(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    monkeypatch.setattr("tfvamp.runs.load", lambda run: seen.append(list(tmp_path.iterdir())) or 1 / 0)
    (tmp_path / "r").mkdir()
    command("sample", tmp_path / "r", "--output", "s.png")
    assert seen == [[tmp_path / "r"]]  # and nothing that a killed command could leave


# --- a broken installation ---


def test_another_backend_is_one_line(tmp_path):
    code = "import sys\nfrom tfvamp_cli.main import main\nmain(['info', '.'])\n"
    for backend in ("jax", "torch"):
        result = process(code, KERAS_BACKEND=backend)
        assert result.returncode == 1
        assert result.stderr == (
            f"tfvamp: tfvamp needs Keras on TensorFlow, with KERAS_BACKEND=tensorflow; it is '{backend}' (from the "
            "environment variable KERAS_BACKEND)\n"
        )
    result = process("import tfvamp", KERAS_BACKEND="jax")
    assert result.stderr.splitlines()[-1].startswith("ImportError: tfvamp needs Keras on TensorFlow")
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {"KERAS_HOME": str(tmp_path)}
    result = process("import os; os.environ.pop('KERAS_BACKEND', None)\nimport tfvamp", **environment)
    assert f"it is 'jax' (from {tmp_path}/keras.json)" in result.stderr.splitlines()[-1]


def test_a_broken_tensorflow_is_one_line(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('DLL load failed\\nmore lines')")
    code = f"from tfvamp_cli.main import main\nmain(['info', {str(tmp_path)!r}])\n"
    result = process(code, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert result.returncode == 1 and result.stderr == (
        "tfvamp: cannot import what tfvamp needs (DLL load failed): install tfvamp and TensorFlow again, or see "
        "tfvamp --debug\n"
    )


def test_work_without_a_terminal_says_how_far_it_is(monkeypatch):
    """A line every half minute, with the time left; each part of the work is counted from its start."""
    clock = iter([0.0, 0.0, 20.0, 40.0, 45.0, 80.0, 81.0, 100.0, 141.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    said = []
    advance = output._lines("evaluating", said.append)
    for done in (0, 10, 20, 25, 100, 0, 5, 20):
        advance(done, 100)
    assert said == [
        "evaluating: 20 of 100, about 3 minutes left",
        "evaluating: 0 of 100",
        "evaluating: 20 of 100, about 4 minutes left",
    ]
