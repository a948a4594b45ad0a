"""tfvamp sweep: the file, the runs, what is left of them; a search; processes and Ray."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

import tfvamp
from tests.small import eagerly
from tfvamp import sweeps
from tfvamp.config import TrainConfig
from tfvamp.errors import FileError, RunError, UsageError
from tfvamp.runs import Run
from tfvamp.sweeps import plan, runner, search, spec, workers
from tfvamp.training.interrupts import SIGNALS
from tfvamp_cli.main import main

pytestmark = pytest.mark.xdist_group("sweeps")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    """Tiny images, as a data set."""
    path = tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 2, (50, 6, 5)).astype(np.uint8))
    return f"npz:{path}"


def settings(images: str, **more) -> str:
    small = {
        "dataset": images, "epochs": 2, "warmup": 0, "components": 3, "hidden_units": 4, "latent_dims": 2, "batch_size": 20,
        "jit": False, "patience": 10**6,
    }  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}" for name, value in (small | more).items()]
    return "[settings]\n" + "\n".join(lines) + "\n"


@pytest.fixture
def file(images, tmp_path) -> pathlib.Path:
    """A grid of two priors and two seeds, evaluated."""
    path = tmp_path / "priors.toml"
    path.write_text(
        f'run_dir = "{tmp_path}/runs"\n{settings(images)}'
        '[vary]\nprior = ["standard", "mog"]\nseed = [0, 1]\n'
        '[evaluate]\nsamples = 5\nproposal = "encoder"\n'
    )
    return path


class Here:
    """Workers that carry out commands in this process, at once; some are let fail or be stopped."""

    def __init__(self, fail=()):
        self.started, self.fail, self.stopped = [], fail, []

    def start(self, commands, log):
        self.started.append([list(words) for words in commands])
        if log.stem in self.fail:
            log.write_text("chatter\ntfvamp: it went wrong\nmore chatter\n")
            return 1
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        with eagerly():
            for words in commands:
                result = CliRunner().invoke(main, ["--quiet", *map(str, words)])
                assert result.exit_code == 0, result.output
        for number, handler in handlers.items():  # which commands change
            signal.signal(number, handler)
        return 0

    def ended(self, handle):
        return handle

    def stop(self, handle):
        self.stopped.append(handle)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)


def test_a_grid_is_run_once_and_what_is_left_goes_on(file, tmp_path):
    said, here = [], Here()
    done = sweeps.sweep(sweeps.read(file), here, say=said.append)
    names = ["prior=standard,seed=0", "prior=standard,seed=1", "prior=mog,seed=0", "prior=mog,seed=1"]
    assert [run.name for run in done.runs] == names and not done.failed and done.signal is None
    assert [run.state() for run in done.runs] == ["finished"] * 4
    assert said[0].startswith("1/4 prior=standard,seed=0: best epoch ") and len(said) == 4
    runs = {name: Run(tmp_path / "runs" / name) for name in names}
    assert all(run.evaluation()["num_samples"] == 5 and len(run.rows()) == 2 for run in runs.values())
    assert runs[names[3]].config.prior == "mog" and runs[names[3]].config.seed == 1
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = Here()
    done = sweeps.sweep(sweeps.read(file), again, say=said.append)
    assert again.started == [] and said[-1] == "4/4 prior=mog,seed=1: finished before"
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
    # More epochs, other samples: the runs are resumed, and evaluated again.
    text = file.read_text().replace("epochs = 2", "epochs = 3").replace("samples = 5", "samples = 6")
    file.write_text(text)
    assert {run.state() for run in sweeps.planned(sweeps.read(file))} == {"unfinished"}
    sweeps.sweep(sweeps.read(file), again)
    assert [words[0][:2] for words in again.started] == [["train", "--resume"]] * 4
    assert all(len(Run(run.path).rows()) == 3 for run in runs.values())
    shown = CliRunner().invoke(main, ["--quiet", "sweep", str(file), "--list"])
    assert shown.exit_code == 0 and shown.stdout.count("finished") == 4
    table = CliRunner().invoke(main, ["--quiet", "sweep", str(file), "--format", "json"])
    rows = json.loads(table.stdout)
    assert [row["prior"] for row in rows] == ["standard", "mog"] and rows[1]["runs"] == 2
    assert rows[1]["difference"] is not None and "log_likelihood_spread" in rows[0]


def test_a_run_that_fails_does_not_end_the_sweep(file, tmp_path):
    said, here = [], Here(fail=["prior=standard,seed=1"])
    done = sweeps.sweep(sweeps.read(file), here, say=said.append)
    assert done.failed == {"prior=standard,seed=1": "it went wrong"}
    assert "2/4 prior=standard,seed=1: failed: it went wrong" in said[1]
    assert sum((run.path / "history.csv").is_file() for run in done.runs) == 3


def test_a_signal_stops_the_runs_and_the_same_command_goes_on(file, monkeypatch):
    class Slow(Here):
        def start(self, commands, log):
            if len(self.started) == 1:
                signal.raise_signal(signal.SIGTERM)
            return super().start(commands, log)

    here, said = Slow(), []
    done = sweeps.sweep(sweeps.read(file), here, say=said.append)
    assert done.signal == signal.SIGTERM and len(done.runs) == 2
    assert "stopping: the runs in training save what they have" in said
    assert len(sweeps.sweep(sweeps.read(file), Here()).runs) == 4


def test_a_folder_of_other_settings_is_refused_before_anything_runs(file, images, tmp_path):
    sweeps.sweep(sweeps.read(file), Here())
    file.write_text(file.read_text().replace("hidden_units = 4", "hidden_units = 5"))
    here = Here()
    with pytest.raises(
        RunError,
        match=r"has other settings \(hidden_units\): give the command the settings .* or another folder",
    ):
        sweeps.sweep(sweeps.read(file), here)
    assert here.started == []
    elsewhere = sweeps.read(file, tmp_path / "others")
    assert {run.state() for run in sweeps.planned(elsewhere)} == {"missing"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vary = 3", "vary must be a table"),
        ("[vary]", "names no setting"),
        ("[vary]\nsed = [1]", "unknown setting 'sed'.*seed"),
        ("[varry]\nseed = [1]", "unknown key of a sweep 'varry'.*vary"),
        ("[vary]\nseed = []", "seed has no values"),
        ("[vary]\nseed = [1, 1]", "seed has a value twice"),
        ("[vary]\nseed = 1", "seed must be a list of values"),
        ('[vary]\nprior = ["vamp", "vmap"]', "the run with prior = 'vmap': unknown prior 'vmap'"),
        ('[vary]\nepochs = [1, "2"]', "the run with epochs = '2': epochs must be of type int"),
        ("[settings]\nseed = 1\n[vary]\nseed = [1]", "seed stands both in"),
        ("[vary]\nbeta = {low = 1, hgih = 2}", "unknown key of beta 'hgih'.*high"),
        ("[vary]\nbeta = {low = 1}", "beta needs the numbers low and high"),
        ("[vary]\nbeta = {low = 2, high = 1}", "beta needs low < high"),
        ("[vary]\nbeta = {low = 0.0, high = 1.0, log = true}", "above 0 where log"),
        ("[vary]\nbeta = {low = nan, high = 1.0}", "finite"),
        ('kind = "rnadom"\n[vary]\nseed = [1]', "unknown kind 'rnadom'.*random"),
        ("runs = 3\n[vary]\nseed = [1]", "runs goes with kind"),
        ('kind = "random"\nruns = 0\n[vary]\nseed = [1]', "runs must lie between 1 and 10000"),
        ('runs = "3"\n[vary]\nseed = [1]', "runs must be a whole number"),
        ("seed = true\n[vary]\nepochs = [1]", "seed must be a whole number"),
        ("run_dir = 3\n[vary]\nseed = [1]", "run_dir must be a text"),
        ('preset = "papre"\n[vary]\nseed = [1]', "unknown preset 'papre'"),
        (
            "[evaluate]\nsampels = 3\n[vary]\nseed = [1]",
            "unknown setting of an evaluation 'sampels'.*samples",
        ),
        ("[evaluate]\nsamples = 0\n[vary]\nseed = [1]", "samples must be at least 1"),
        ("[evaluate]\nlimit = 0\n[vary]\nseed = [1]", "limit must be a whole number"),
        ('[evaluate]\nsplit = "tset"\n[vary]\nseed = [1]', "unknown split 'tset'"),
        (f"[vary]\nseed = {list(range(200))}\nepochs = {list(range(1, 200))}", "the grid has 39800 runs"),
        ("[evaluate]\nchains = 8\n[vary]\nseed = [1]", "chains goes with estimator ais or bdmc"),
        ('[evaluate]\nestimator = "bdmc"\nsplit = "test"\n[vary]\nseed = [1]', "split has no effect on bdmc"),
        (
            '[vary]\nobjective = ["iwae", "elbo"]\ndreg = [true, false]\nbeta = {low = 0.5, high = 1}',
            "the run with objective = 'elbo', dreg = True",
        ),
        ("cases = 3", "cases must be a table"),
        ("[cases]\nwide = 3", r"a case must be a table of settings: \[cases.wide\]"),
        ("[cases.noise-0.2]\nseed = 1", r'needs quotation marks: \[cases."noise-0.2"\]'),
        ('[cases."../x"]\nseed = 1', "the name of a case must have at most 60 letters"),
        ("[cases.wide]\nhidden = 600", "unknown setting 'hidden'.*hidden_units"),
        ("[cases.wide]\nhidden_units = 0", "the run with case = 'wide': hidden_units must be at least 1"),
        ("[cases.a]\nseed = 3\n[vary]\nseed = [1]", r"seed stands both in \[cases.a\] and in \[vary\]"),
        ('kind = "random"\n[cases.a]\n[vary]\nseed = [1]', 'cases. go with kind = "grid"'),
        (
            "[cases.a]\n[cases.b]\n[vary]\nseed = " + str(list(range(6000))),
            "the grid has 12000 runs",
        ),
        ("[vary\n", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)
def test_files_that_cannot_be(text, message, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        sweeps.read(tmp_path / "s.toml")
    assert str(raised.value).startswith(str(tmp_path / "s.toml"))


def test_cases_are_sets_of_settings(rates, tmp_path):
    """Each with all values that vary, in the order of the file; a case comes before [settings]."""
    (tmp_path / "s.toml").write_text(
        "[settings]\nwarmup = 7\nhidden_units = 5\n[cases.plain]\n"
        "[cases.joint]\nhidden_units = 6\naverage = 0.9\n[vary]\nseed = [0, 1]"
    )
    read = sweeps.read(tmp_path / "s.toml")
    runs = {run.name: run.config for run in sweeps.planned(read)}
    assert list(runs) == ["case=plain,seed=0", "case=plain,seed=1", "case=joint,seed=0", "case=joint,seed=1"]
    found = [(one.hidden_units, one.average, one.warmup, one.seed) for one in runs.values()]
    assert found == [(5, 0.0, 7, 0), (5, 0.0, 7, 1), (6, 0.9, 7, 0), (6, 0.9, 7, 1)]
    (tmp_path / "alone.toml").write_text("[cases.a]\n[cases.b]\nwarmup = 3")
    assert [run.name for run in sweeps.planned(sweeps.read(tmp_path / "alone.toml"))] == ["case=a", "case=b"]
    with pytest.raises(UsageError, match="a search chooses values itself: leave out the cases"):
        search.Search(read, 3)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError):
        sweeps.read(tmp_path / "no.toml")
    result = CliRunner().invoke(main, ["sweep", str(tmp_path / "no.toml")])
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1


def test_bounds_need_a_random_sweep_or_a_search(tmp_path):
    (tmp_path / "s.toml").write_text(
        "[vary]\nlearning_rate = {low = 1e-5, high = 1e-3, log = true}\nepochs = [3, 4]"
    )
    read = sweeps.read(tmp_path / "s.toml")
    assert read.run_dir == pathlib.Path("runs/s")
    with pytest.raises(UsageError, match="learning_rate lies between bounds: give a list"):
        sweeps.planned(read)
    drawn = dataclasses.replace(read, kind="random", runs=300)
    rates = np.array([run.config.learning_rate for run in sweeps.planned(drawn)])
    assert len(rates) == 300 and rates.min() > 1e-5 and rates.max() < 1e-3
    assert np.log10(rates).mean() == pytest.approx(-4.0, abs=4 * 2 / np.sqrt(12 * 300))  # uniform on [-5, -3]
    assert [run.name for run in sweeps.planned(drawn)] == [run.name for run in sweeps.planned(drawn)]
    assert {run.config.epochs for run in sweeps.planned(drawn)} == {3, 4}


def test_whole_numbers_between_bounds_are_equally_likely():
    between = spec.Between(1, 4)
    drawn = [between.at(share) for share in np.arange(0.0005, 1.0, 0.001)]
    assert np.unique(drawn, return_counts=True)[1].tolist() == [250] * 4
    assert (
        spec.Between(1, 100, log=True).at(1.0 - 2**-53) == 100
        and spec.Between(0.5, 2.0, log=True).at(0.5) == 1.0
    )


def test_names_of_folders_are_safe_and_never_shared():
    names = [
        plan.name_of(values)
        for values in (
            {"dataset": "npz:/a/b.npz"},
            {"dataset": "npz:-a-b.npz"},
            {"dataset": "../../etc"},
            {"raw_dir": "x" * 400},
            {"raw_dir": "x" * 401},
            {"optimizer_arguments": {"beta_1": 0.5}},
        )
    ]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) <= 130 for name in names)


def test_a_run_is_trained_when_its_history_says_so():
    def rows(*elbos):
        return [
            {"epoch": epoch, "val_elbo": elbo, "val_reconstruction": elbo, "val_kl": 0.0}
            for epoch, elbo in enumerate(elbos, start=1)
        ]

    config = TrainConfig(epochs=5, patience=1, warmup=0)
    assert not plan.has_ended([], config) and not plan.has_ended(rows(-2.0, -3.0), config)
    assert plan.has_ended(rows(-2.0, -3.0, -3.0), config)
    assert plan.has_ended(rows(-5.0, -4.0, -3.0, -2.0, -1.0), config)


# --- a search ---


@pytest.fixture
def rates(images, tmp_path) -> pathlib.Path:
    path = tmp_path / "rates.toml"
    path.write_text(
        f'run_dir = "{tmp_path}/runs"\n{settings(images, epochs=1)}'
        '[vary]\nlearning_rate = {low = 1e-5, high = 0.1, log = true}\nprior = ["mog", "standard"]\n'
    )
    return path


def test_a_search_goes_on_where_it_stopped(rates, tmp_path):
    read = sweeps.read(rates)
    done = sweeps.sweep(read, Here(), search=search.Search(read, 3))
    assert len(done.runs) == 3 and set(done.best) == {"learning_rate", "prior"}
    bounds = {run.name: run.progress().bound for run in done.runs}
    assert plan.name_of(done.best) == max(bounds, key=bounds.get)
    more = search.Search(read, 5)
    assert more.left == 2
    trial, values = more.ask()  # and the process is gone
    del trial
    again = search.Search(read, 5)
    assert again.left == 2
    said = []
    done = sweeps.sweep(read, Here(), search=again, say=said.append)
    assert done.runs[0].values == values and len(done.runs) == 2 and said[1].startswith("2/2 ")
    assert len([path for path in (tmp_path / "runs").iterdir() if (path / "config.json").is_file()]) == 5
    failing = search.Search(read, 6)
    here = Here(fail=FailAll())
    assert len(sweeps.sweep(read, here, search=failing).failed) == 1
    rates.write_text(rates.read_text().replace("1e-5", "1e-4"))
    with pytest.raises(UsageError, match="is the study of other settings"):
        search.Search(sweeps.read(rates), 9)
    rates.write_text(rates.read_text().replace("prior =", "seed = [0, 1]\nprior ="))
    with pytest.raises(UsageError, match="leave seed out of"):
        search.Search(sweeps.read(rates, tmp_path / "other"), 9)


def test_a_search_that_asks_for_a_run_in_training_waits_for_it(rates, tmp_path):
    """Two jobs, one combination: the second trial takes the first one's result."""
    rates.write_text(
        rates.read_text()
        .replace("learning_rate = {low = 1e-5, high = 0.1, log = true}\n", "")
        .replace('["mog", "standard"]', '["mog"]')
    )
    read = sweeps.read(rates)

    class Counting(Here):
        def __init__(self):
            super().__init__()
            self.running = 0

        def start(self, commands, log):
            self.running += 1
            assert self.running == 1
            return [super().start(commands, log), 3]

        def ended(self, handle):
            handle[1] -= 1
            if handle[1]:
                return None
            self.running -= 1
            return handle[0]

    workers_, said = Counting(), []
    done = sweeps.sweep(read, workers_, 2, search.Search(read, 2), said.append)
    assert len(workers_.started) == 1 and not done.failed and said[1].endswith("prior=mog: finished before")


def test_what_is_in_a_folder_of_runs_is_not_trusted(rates, tmp_path):
    read = sweeps.read(rates)
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "runs" / "study.log").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"study.log is not a file of a search"):
        search.Search(read, 3)
    (tmp_path / "runs" / "study.log").unlink()
    (tmp_path / "runs" / "study.log").write_text("garbage\n{}\n")
    with pytest.raises(UsageError, match=r"study.log is damaged"):
        search.Search(read, 3)
    (tmp_path / "runs" / "logs").symlink_to(tmp_path)
    with pytest.raises(RunError, match="logs is a link"):
        sweeps.sweep(dataclasses.replace(read, kind="random", runs=1), Here())
    log = tmp_path / "log"
    log.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic"):
        workers.open_log(log)
    assert workers.last_line(log) == "it wrote nothing" and (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "other").write_text("tfvamp: \x1b[31mred\n")
    assert workers.last_line(tmp_path / "other") == "?[31mred"


def test_changes_of_a_file_are_noticed(file, tmp_path):
    """A setting that is taken out, and other settings of the evaluation."""
    text = file.read_text()
    file.write_text(text.replace("[vary]", "limit = 40\n[vary]").replace('["standard", "mog"]', '["mog"]'))
    sweeps.sweep(sweeps.read(file), Here())
    file.write_text(text.replace('["standard", "mog"]', '["mog"]'))
    with pytest.raises(RunError, match=r"has other settings \(limit\)"):
        sweeps.planned(sweeps.read(file))[0].state()
    file.write_text(text.replace("[vary]", "limit = 40\n[vary]").replace('["standard", "mog"]', '["mog"]'))
    run = sweeps.planned(sweeps.read(file))[0]
    assert run.state() == "finished"
    for other in (
        {"samples": 5, "proposal": "encoder", "limit": 3},
        {"samples": 5},
        {"samples": 4, "proposal": "encoder"},
    ):
        expected = (
            "finished" if other == {"samples": 5} else "trained"
        )  # the proposal is then the model's own choice
        assert dataclasses.replace(run, evaluate=other).state() == expected
    words = dataclasses.replace(
        run, config=dataclasses.replace(run.config, epochs=9, on_nan="skip")
    ).commands(tmp_path)
    assert words[0][:2] == ["train", "--resume"]
    for option, value in (("--epochs", "9"), ("--on-nan", "skip"), ("--strategy", "one")):
        assert words[0][words[0].index(option) + 1] == value


class FailAll:
    def __contains__(self, name):
        return True


def test_a_search_gives_up_what_is_below_the_median(rates, monkeypatch):
    """Trials 0 to 4 end; the sixth is worse than all of them and is stopped."""
    read = sweeps.read(rates)
    study = search.Search(read, 6)
    bounds = iter([-10.0, -11.0, -12.0, -13.0, -14.0, -50.0])
    given = {}

    class Run_(plan.Planned):
        def progress(self):
            return plan.Progress(20, 20, given[self.name])

        def bounds(self):
            return [given[self.name]] * 20

        def is_trained(self):
            return False

        def commands(self, settings):
            given[self.name] = next(bounds)
            return [["train"]]

    class Slow(Here):
        """Each run is looked at once before it ends."""

        def start(self, commands, log):
            self.started.append(log.stem)
            return [log.stem, 0]

        def ended(self, handle):
            handle[1] += 1
            return None if handle[1] == 1 else (143 if handle[0] in self.stopped else 0)

        def stop(self, handle):
            self.stopped.append(handle[0])

    monkeypatch.setattr(runner, "run_of", lambda spec, values: Run_(**vars(plan.run_of(spec, values))))
    workers_ = Slow()
    done = sweeps.sweep(read, workers_, search=study)
    assert len(done.runs) == 6 and done.given_up == [done.runs[5].name] == workers_.stopped
    assert not done.failed and plan.name_of(done.best) == done.runs[0].name


def test_without_optuna_or_ray_the_extra_is_named(rates, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match="pip install 'tfvamp\\[tune\\]'"):
        search.Search(sweeps.read(rates), 3)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "tfvamp.sweeps.on_ray", raising=False)
    with pytest.raises(UsageError, match="pip install 'tfvamp\\[ray\\]'"):
        workers.by_name("ray", 1)


# --- processes ---


def test_processes_of_a_sweep_that_is_killed_end_and_the_next_goes_on(images, tmp_path):
    """Two at a time; SIGKILL of the sweep, after which no process is left; then the sweep again, to the end."""
    file = tmp_path / "s.toml"
    run_dir = tmp_path / "runs"
    file.write_text(f'run_dir = "{run_dir}"\n{settings(images, epochs=100_000)}[vary]\nseed = [0, 1]\n')
    words = [sys.executable, "-m", "tfvamp_cli.main", "sweep", str(file), "--jobs", "2"]
    sweep = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    histories = [run_dir / f"seed={seed}" / "history.csv" for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(path.is_file() for path in histories) and time.monotonic() < deadline:
        time.sleep(0.2)
        assert sweep.poll() is None, sweep.stdout.read()
    held = [int(json.loads((path.parent / "lock").read_text())["pid"]) for path in histories]
    sweep.kill()
    sweep.wait()
    while any(os.path.exists(f"/proc/{pid}") for pid in held) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in held)
    epochs = [len(Run(path.parent).rows()) for path in histories]
    more = max(epochs) + 2
    file.write_text(file.read_text().replace("epochs = 100000", f"epochs = {more}"))
    again = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert [len(Run(path.parent).rows()) for path in histories] == [more, more]
    assert again.stderr.count("best epoch") == 2


def test_what_a_failed_command_said(tmp_path):
    log = tmp_path / "log"
    assert workers.last_line(log) == "it wrote nothing"
    log.write_text("")
    assert workers.last_line(log) == "it wrote nothing"
    log.write_bytes(b"a\n\xff\xfelast\n")
    assert workers.last_line(log).endswith("last")
    log.write_text("tfvamp: the error\nE0000 chatter at exit\n")
    assert workers.last_line(log) == "the error"


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for name in workers.THREADS:
        monkeypatch.delenv(name, raising=False)
    assert [workers.environment(3)[name] for name in workers.THREADS] == ["2"] * 3
    assert not set(workers.THREADS) & set(workers.environment(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert workers.environment(3)["OMP_NUM_THREADS"] == "7"


def test_the_same_runs_by_ray(images, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.2)  # the cores are the workers'
    file = tmp_path / "s.toml"
    file.write_text(f'run_dir = "{tmp_path}/runs"\n{settings(images)}[vary]\nseed = [1]\n')
    result = CliRunner().invoke(main, ["sweep", str(file), "--ray", "--jobs", "2"])
    assert result.exit_code == 0, result.output
    config = Run(tmp_path / "runs" / "seed=1").config
    with eagerly():
        tfvamp.train(config, tmp_path / "alone")
    ours, theirs = Run(tmp_path / "runs" / "seed=1").rows(), Run(tmp_path / "alone").rows()
    for one, other in zip(ours, theirs, strict=True):
        assert one["val_elbo"] == pytest.approx(other["val_elbo"], rel=1e-5)
