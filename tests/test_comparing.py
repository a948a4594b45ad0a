"""tfvamp compare: settings that differ, results, paired differences; the forms of tables."""

import csv
import io
import json
import shutil
import types

import numpy as np
import pytest
from click.testing import CliRunner

import tfvamp
from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, UsageError
from tfvamp.runs import Run, comparing
from tfvamp_cli import tables
from tfvamp_cli.main import main

pytestmark = pytest.mark.xdist_group("comparing")  # they share runs


@pytest.fixture
def runs(evaluated_runs):
    return evaluated_runs


def table_of(runs, *names, **how):
    return tfvamp.compare([runs / name for name in names], **how).set_index("run")


def test_a_paired_difference_by_hand(runs):
    table = table_of(runs, "a", "b", "none")
    assert list(table.columns) == [
        "learning_rate", "trained_epochs", "best_epoch", "bound", "images", "log_likelihood", "standard_error",
        "monte_carlo_error", "difference", "difference_error", "encoder", "encoder_difference",
        "encoder_difference_error",
    ]  # fmt: skip
    arrays = {name: Run(runs / name).evaluated_arrays() for name in "ab"}
    row = table.loc[str(runs / "b")]
    for prefix, name in (("", "log_likelihood"), ("encoder_", "encoder_log_likelihood")):
        difference = arrays["b"][name] - arrays["a"][name]
        assert row[f"{prefix}difference"] == pytest.approx(difference.mean(), rel=1e-12)
        error = difference.std(ddof=1) / np.sqrt(30)
        assert row[f"{prefix}difference_error"] == pytest.approx(error, rel=1e-12)
    assert row["log_likelihood"] == pytest.approx(arrays["b"]["log_likelihood"].mean(), rel=1e-12)
    assert row["standard_error"] == pytest.approx(Run(runs / "b").evaluation()["standard_error"], rel=1e-6)
    assert row["bound"] == max(one["val_elbo"] for one in Run(runs / "b").rows())
    assert np.isnan(table.loc[str(runs / "a"), "difference"])
    assert np.isnan(table.loc[str(runs / "none"), "log_likelihood"])


def test_a_log_density_that_is_not_exact_is_in_the_table(runs, tmp_path):
    shutil.copytree(runs / "b", tmp_path / "b")
    path = tmp_path / "b" / "evaluation.json"
    path.write_text(path.read_text().replace('"prior_density": "exact"', '"prior_density": "bound"'))
    table = tfvamp.compare([runs / "a", tmp_path / "b"]).set_index("run")
    assert table.loc[str(tmp_path / "b"), "prior_density"] == "bound"
    assert table["prior_density"].notna().sum() == 1
    path.write_text(path.read_text().replace('"bound"', '"\\u001b[31m"'))
    assert "prior_density" not in tfvamp.compare([runs / "a", tmp_path / "b"])


def test_the_baseline_changes_the_sign_and_is_added(runs):
    forth = table_of(runs, "a", "b").loc[str(runs / "b")]
    back = table_of(runs, "a", baseline=runs / "b").loc[str(runs / "a")]
    assert (
        back["difference"] == -forth["difference"] and back["difference_error"] == forth["difference_error"]
    )


def test_runs_over_seeds_are_compared_seed_by_seed():
    """With the run of the baseline's settings that has their seed; with the baseline itself where there is none."""

    def run(**settings):
        return types.SimpleNamespace(config=TrainConfig(**settings))

    runs = [run(seed=0), run(seed=1), run(seed=0, average=0.9), run(seed=1, average=0.9), run(seed=2)]
    for baseline, which, expected in ((0, 2, 0), (0, 3, 1), (1, 2, 0), (2, 1, 3), (2, 4, 2), (0, 1, 1)):
        said: list[str] = []
        found = comparing._alike(runs, runs[baseline], runs[which], "seed", said.append)
        assert found is runs[expected] and len(said) == (which == 4)


def test_runs_over_seeds_become_one_row(runs):
    table = table_of(runs, "a", "b", "c", over="seed")
    both = table.loc[str(runs / "a")]
    single = [tfvamp.compare(runs / name).loc[0] for name in "ac"]
    assert both["runs"] == 2 and "seed" not in table.columns
    values = [one["log_likelihood"] for one in single]
    assert both["log_likelihood"] == pytest.approx(np.mean(values))
    assert both["log_likelihood_spread"] == pytest.approx(np.std(values, ddof=1))
    assert table.loc[str(runs / "b"), "runs"] == 1
    with pytest.raises(UsageError, match="unknown setting 'seeds'.*seed"):
        table_of(runs, "a", over="seeds")


def test_what_does_not_compare_is_said(runs, tmp_path):
    shutil.copytree(runs / "b", tmp_path / "b")
    tfvamp.evaluate(tmp_path / "b", 21, limit=30, refine_steps=2)
    said = []
    table = tfvamp.compare([runs / "a", tmp_path / "b", runs / "none"], say=said.append)
    assert "difference" not in table.columns
    assert any("its num samples differs" in text for text in said)
    assert any("none is not evaluated on test" in text for text in said)
    shutil.copytree(runs / "b", tmp_path / "older")
    for path in (tmp_path / "older").rglob("evaluation.json"):
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "images_sha256": None}))
    tfvamp.compare([runs / "a", tmp_path / "older"], say=said.append)
    assert any("its images sha256 was not recorded for both: evaluate them again" in text for text in said)
    with pytest.raises(RunError, match="none of these is a run folder"):
        tfvamp.compare(tmp_path / "nowhere")
    with np.load(tmp_path / "b" / "evaluations" / "000002" / "log_likelihood.npz") as stored:
        arrays = dict(stored)
    for wrong in (np.full(30, np.nan), np.zeros(29), np.zeros((30, 1))):
        np.savez(
            tmp_path / "b" / "evaluations" / "000002" / "log_likelihood.npz",
            **{**arrays, "log_likelihood": wrong},
        )
        with pytest.raises(RunError, match="is damaged: evaluate it again"):
            tfvamp.compare([runs / "a", tmp_path / "b"])


def command(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_and_its_forms(runs, tmp_path):
    shown = command("compare", runs / "a", runs / "b", "--format", "csv")
    assert shown.exit_code == 0, shown.output
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [row["learning_rate"] for row in rows] == ["0.0005", "0.01"] and rows[0]["difference"] == ""
    table = table_of(runs, "a", "b")
    assert float(rows[1]["difference"]) == table.loc[str(runs / "b"), "difference"]
    assert (
        json.loads(command("compare", runs / "a", runs / "b", "--format", "json").stdout)[0]["difference"]
        is None
    )
    text = command("compare", runs / "a", runs / "b").stdout.splitlines()
    assert len(text) == 3 and f"{table.loc[str(runs / 'b'), 'difference']:.2f}" in text[2]
    path = tmp_path / "table.tex"
    assert command("compare", runs / "a", runs / "b", "--format", "latex", "--output", path).exit_code == 0
    assert path.read_text().startswith("\\begin{tabular}{lr") and "log\\_likelihood" in path.read_text()
    assert command("compare", runs / "a", "--format", "word").exit_code == 2
    assert command("compare", runs / "a", "--split", "tests").exit_code == 2
    assert command("compare", tmp_path / "no").exit_code == 1


def test_cells_of_tables():
    columns = {"name": ["a|b_c", "x\x1b[31m"], "value": [1.23456, None], "flag": [True, False]}
    assert tables.rendered(columns, "markdown", {"value": 2}) == (
        "| name | value | flag |\n| --- | ---: | --- |\n| a\\|b_c | 1.23 | True |\n| x?[31m |  | False |\n"
    )
    assert tables.rendered(columns, "text", {"value": 1}) == (
        "name    value  flag\na|b_c     1.2  True\nx?[31m         False\n"
    )
    latex = tables.rendered(columns, "latex", {})
    assert "a|b\\_c & 1.23456 & True \\\\" in latex and latex.endswith("\\end{tabular}\n")
    assert tables.rendered(columns, "csv", {}).splitlines()[1] == "a|b_c,1.23456,True"
