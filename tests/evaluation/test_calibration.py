"""Calibration and class by class: scikit-learn's figures on the same answers."""

import numpy as np
import pytest

from fl.evaluation.answers import Answers, figures
from fl.evaluation.calibration import calibration_error, reliability
from fl.evaluation.classes import by_class, confusion, macro_f1
from fl.evaluation.held_back import calibration
from fl.signature import Signature

metrics = pytest.importorskip("sklearn.metrics", reason="extra eval is not installed")


def drawn(num_classes: int, n: int = 500, seed: int = 0) -> Answers:
    """Answers of a model that is right more often than not, and sure in various degrees."""
    random = np.random.default_rng(seed)
    y = random.integers(0, num_classes, n)
    outputs = random.normal(size=(n, num_classes)).astype(np.float32)
    outputs[np.arange(n), y] += 1.2
    return Answers(Signature("classification", (4,), "float32", num_classes), outputs, y)


def test_reliability_is_scikit_learn_s_calibration_curve():
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    found = drawn(2)
    probability, y = found.probabilities[:, 1], found.y.astype(float)
    for bins in (5, 15):
        mine = reliability(probability, y, bins)
        came_true, sure = calibration_curve(y, probability, n_bins=bins, strategy="uniform")
        filled = mine.counts > 0
        assert mine.sure[filled] == pytest.approx(sure) and mine.came_true[filled] == pytest.approx(came_true)
        weights = mine.counts[filled] / mine.counts.sum()
        assert mine.error == pytest.approx(np.sum(weights * np.abs(sure - came_true)))
        assert calibration_error(probability, y, bins).value == pytest.approx(mine.error)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_figures_are_scikit_learn_s(num_classes):
    found = drawn(num_classes)
    mine = {name: figure.value for name, figure in figures(found).items()}
    assert mine["loss"] == pytest.approx(metrics.log_loss(found.y, found.probabilities))
    assert mine["accuracy"] == pytest.approx(metrics.accuracy_score(found.y, found.predicted))
    assert mine["macro_f1"] == pytest.approx(metrics.f1_score(found.y, found.predicted, average="macro"))
    if num_classes == 2:  # scikit-learn counts one of the two classes
        theirs = metrics.brier_score_loss(found.y, found.probabilities[:, 1])
        assert mine["brier"] == pytest.approx(2 * theirs)
        assert list(calibration(found)) == ["answered", "second_class"]
    else:
        truth = np.eye(num_classes)[found.y]
        assert mine["brier"] == pytest.approx(np.mean(np.sum((found.probabilities - truth) ** 2, axis=1)))


def test_classes_are_scikit_learn_s_and_nothing_by_nothing_is_absent():
    found = drawn(4)
    predicted = np.where(found.predicted == 3, 2, found.predicted)  # class 3 is never answered
    mine = by_class(found.y, predicted, 4, ("a", "b", "c", "d"))
    theirs = metrics.precision_recall_fscore_support(found.y, predicted, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "examples"), theirs, strict=True):
        assert [one[name] for one in mine] == [None if np.isnan(value) else pytest.approx(value) for value in values]
    assert mine[3]["precision"] is None and mine[3]["recall"] == 0 and mine[3]["name"] == "d"
    assert confusion(found.y, predicted, 4) == metrics.confusion_matrix(found.y, predicted).tolist()
    assert macro_f1(found.y, predicted, 4).value == pytest.approx(metrics.f1_score(found.y, predicted, average="macro"))


def test_a_regression_s_figures_are_scikit_learn_s():
    random = np.random.default_rng(1)
    y = random.normal(50, 10, 300).astype(np.float32)
    outputs = (y + random.normal(0, 4, 300)).astype(np.float32)[:, None]
    found = Answers(Signature("regression", (4,), "float32", 1, target_mean=50.0, target_std=10.0), outputs, y)
    mine = {name: figure.value for name, figure in figures(found).items()}
    assert mine["mae"] == pytest.approx(metrics.mean_absolute_error(y, outputs[:, 0]))
    assert mine["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, outputs[:, 0]))
    assert mine["r2"] == pytest.approx(metrics.r2_score(y, outputs[:, 0]))
    assert "regression" in calibration(found)["absent"]
