"""κ, thresholds, tables of answers, significance tests, and the commands around them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from factories import QUICK, tiny_model
from scipy import stats
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.evaluate import answers_of_both, probabilities
from diffmiczoo.evaluation.results import Answers
from diffmiczoo.evaluation.significance import delong, paired_tests
from diffmiczoo.metrics.calibration import fit_thresholds
from diffmiczoo.metrics.classification import compute_metrics, metric_names


def random_answers(count: int = 200, classes: int = 4, skill: float = 1.0, seed: int = 0, **fields) -> Answers:
    """Answers of a model for the same images whatever its skill."""
    targets = np.random.default_rng(0).integers(0, classes, count)
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, classes)) + skill * np.eye(classes)[targets])
    names = tuple(f"c{number}" for number in range(classes))
    return Answers(
        tuple(f"{number}.png" for number in range(count)),
        tuple((names[target],) for target in targets),
        None,
        logits.softmax(1).float(),
        names,
        "multiclass",
        **fields,
    )


def test_quadratic_kappa_is_scikit_learns() -> None:
    answers = random_answers(ordinal=True)
    measured = answers.metrics(bootstrap=200, progress=False)
    wanted = cohen_kappa_score(answers.targets, answers.probs.argmax(1), weights="quadratic")
    assert measured.values["quadratic_kappa"] == pytest.approx(wanted, abs=1e-12)
    low, high = measured.intervals["quadratic_kappa"]
    assert low < wanted < high and high - low < 0.5
    assert "quadratic_kappa" not in random_answers().metrics(bootstrap=0).values
    assert "quadratic_kappa" in metric_names("multiclass", True)


def test_the_interval_of_kappa_is_that_of_plain_resampling() -> None:
    answers = random_answers(count=80, ordinal=True)
    rng = np.random.default_rng(1)
    targets, given = answers.targets.numpy(), answers.probs.argmax(1).numpy()
    drawn = [
        cohen_kappa_score(targets[rows], given[rows], weights="quadratic")
        for rows in (rng.integers(0, 80, 80) for _ in range(1500))
    ]
    low, high = answers.metrics(bootstrap=1500, progress=False).intervals["quadratic_kappa"]
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx([low, high], abs=0.03)


def test_thresholds_have_the_best_f1_that_there_is() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (90, 3))
    truth[:, 2] = 0
    probs = np.clip(0.25 * truth + rng.uniform(0, 0.5, (90, 3)), 0, 1)
    limits = fit_thresholds(probs, truth)
    assert limits[2] == 0.5
    for label in range(2):
        reached = f1_score(truth[:, label], probs[:, label] >= limits[label])
        best = max(f1_score(truth[:, label], probs[:, label] >= limit) for limit in np.unique(probs[:, label]))
        assert reached == pytest.approx(best)
        assert reached > f1_score(truth[:, label], probs[:, label] >= 0.5)
    measured = [
        compute_metrics(probs, truth, task="multilabel", thresholds=each, bootstrap=0).values["macro_f1"]
        for each in (None, limits)
    ]
    assert measured[1] > measured[0]


def test_perfectly_separated_and_rare_labels_keep_a_half() -> None:
    truth = torch.tensor([0, 1]).repeat(10)[:, None].expand(-1, 2)
    assert fit_thresholds(0.1 + 0.8 * truth, truth) == (0.5, 0.5)
    rare = truth.clone()
    rare[2:, 1] = 0
    assert fit_thresholds(0.1 + 0.3 * rare, rare) == (pytest.approx(0.25), 0.5)


def test_answers_come_back_from_their_table(tmp_path) -> None:
    answers = random_answers(count=10)
    grouped = Answers(**{**answers.__dict__, "groups": tuple("aabbccddee")})
    grouped.save(tmp_path / "a.csv")
    loaded = Answers.load(tmp_path / "a.csv")
    torch.testing.assert_close(loaded.probs, grouped.probs, rtol=1e-5, atol=1e-7)
    assert {**loaded.__dict__, "probs": 0} == {**grouped.__dict__, "probs": 0}
    several = Answers(
        ("x", "y"), (("a", "b"), ()), None, torch.tensor([[0.9, 0.8], [0.1, 0.3]]), ("a", "b"), "multilabel"
    )
    several.save(tmp_path / "b.csv")
    assert Answers.load(tmp_path / "b.csv").labels == several.labels
    assert Answers.load(tmp_path / "b.csv").task == "multilabel"


def test_delong_is_the_area_and_its_spread() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300).astype(bool)
    scores = np.round(rng.normal(size=(2, 300)) + truth * np.array([[1.0], [0.6]]), 1)  # with ties
    areas, covariance = delong(scores, truth)
    assert areas == pytest.approx([roc_auc_score(truth, row) for row in scores])
    drawn = []
    for _ in range(800):
        rows = rng.integers(0, 300, 300)
        drawn.append([roc_auc_score(truth[rows], row[rows]) for row in scores])
    assert np.sqrt(np.diag(covariance)) == pytest.approx(np.std(drawn, axis=0), rel=0.15)


def test_paired_tests_tell_a_better_model_from_an_equal_one() -> None:
    weak, strong, equal = random_answers(skill=1), random_answers(skill=3, seed=1), random_answers(skill=1, seed=2)
    found = {(row.test, row.what): row for row in paired_tests(strong, weak)}
    assert {test for test, _ in found} == {"paired t-test", "McNemar", "DeLong"}
    assert all(row.p_value < 1e-3 for row in found.values())
    row = found["paired t-test", "Brier score per image"]
    truth = np.eye(4)[weak.targets]
    briers = [np.square(each.probs.double().numpy() - truth).sum(1) for each in (strong, weak)]
    assert row.p_value == pytest.approx(stats.ttest_rel(*briers).pvalue)
    assert (row.first, row.second) == pytest.approx((briers[0].mean(), briers[1].mean()))
    right = [(each.probs.argmax(1) == each.targets).numpy() for each in (strong, weak)]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert found["McNemar", "accuracy"].p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    assert np.mean([row.p_value < 0.05 for row in paired_tests(weak, equal)]) < 0.5
    assert all(row.p_value == 1 for row in paired_tests(weak, weak))


def test_p_values_of_equal_models_are_spread_evenly() -> None:
    values = {"paired t-test": [], "McNemar": [], "DeLong": []}
    for seed in range(60):
        one, other = random_answers(count=120, seed=2 * seed + 1), random_answers(count=120, seed=2 * seed + 2)
        for row in paired_tests(one, other):
            values[row.test].append(row.p_value)
    for test, found in values.items():
        assert 0.3 < np.mean(found) < 0.75 and np.mean(np.array(found) < 0.05) < 0.12, test


def test_images_of_a_group_are_not_independent() -> None:
    one, other = random_answers(skill=1), random_answers(skill=1.3, seed=4)
    groups = tuple(str(number // 10) for number in range(200))
    grouped = [Answers(**{**each.__dict__, "groups": groups}) for each in (one, other)]
    row = next(row for row in paired_tests(*grouped) if row.what == "NLL per group")
    plain = next(row for row in paired_tests(one, other) if row.what == "NLL per image")
    assert row.p_value != plain.p_value and row.first == plain.first


def test_answers_for_other_images_are_not_compared() -> None:
    one, other = random_answers(count=10), random_answers(count=12)
    with pytest.raises(ValueError, match="are for 10 and 12 images that are not the same"):
        paired_tests(one, other)
    with pytest.raises(ValueError, match="for other classes"):
        one.difference(random_answers(count=10, classes=3))


@pytest.fixture
def weights(manifest_csv, tmp_path):
    recipe = QUICK.replace(dcg_epochs=2, diffusion_epochs=2)
    return diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False).output


def test_the_commands_evaluate_and_compare(weights, manifest_csv, tmp_path) -> None:
    runner = CliRunner()
    command = ["evaluate", str(manifest_csv), "--model", f"local-dir:{weights}/best", "--bootstrap", "50"]
    files = ["--predictions", str(tmp_path / "m.csv"), "--dcg-predictions", str(tmp_path / "d.csv")]
    result = runner.invoke(main, [*command, *files, "--save"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for part in ("its DCG alone", "model - DCG: accuracy", "light"):
        assert part in result.output
    saved = json.loads((weights / "best" / "metrics.json").read_text())
    assert saved.keys() == {"val", "test"} and saved["test"].keys() == {"model", "dcg", "difference"}
    table = Answers.load(tmp_path / "m.csv")
    assert len(table.names) == 8 and table.groups is not None
    assert saved["test"]["model"]["values"]["accuracy"] == table.metrics(0).values["accuracy"]
    result = runner.invoke(main, [*command, "--split", "val", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["model"]["num_images"] == 8
    result = runner.invoke(main, ["compare", str(tmp_path / "m.csv"), str(tmp_path / "d.csv")], catch_exceptions=False)
    assert result.exit_code == 0 and "| McNemar | accuracy |" in result.output
    result = runner.invoke(main, ["compare", str(tmp_path / "m.csv"), str(manifest_csv)])
    assert result.exit_code == 2 and "needs the columns name, target and prob_<class>" in result.output
    result = runner.invoke(main, ["evaluate", str(manifest_csv), "--model", "diffmicv2_ham10000", "--save"])
    assert result.exit_code == 2 and "--save needs the weights of a local-dir:" in result.output


def test_one_pass_answers_for_the_model_and_for_its_dcg(manifest_csv) -> None:
    model = tiny_model(temperature=0.5, prior_weight=0.4)
    manifest = read_manifest(manifest_csv, class_names=("dark", "light")).split("test")
    model.config = model.config.replace(class_names=("dark", "light"))
    model.trained = True
    both = answers_of_both(model, manifest, progress=False)
    for part, dcg_alone in (("model", False), ("dcg", True)):
        alone = probabilities(model, manifest, dcg_alone=dcg_alone, progress=False)
        torch.testing.assert_close(both[part].probs, alone, rtol=0, atol=1e-6)
    assert both["model"].names == both["dcg"].names and not torch.equal(both["model"].probs, both["dcg"].probs)


def test_evaluate_takes_an_npz(tmp_path, weights) -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", test_images=images, test_labels=np.array([[0], [1]] * 3))
    model = diffmiczoo.create_model(f"local-dir:{weights}/best", pretrained=True)
    metrics = diffmiczoo.evaluate(model, tmp_path / "m.npz", bootstrap=0, progress=False)
    assert metrics.num_images == 6
