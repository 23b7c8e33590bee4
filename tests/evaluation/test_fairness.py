"""Fairness: fairlearn's figures on the same answers."""

import numpy as np
import pytest

from fl.errors import BadInput
from fl.evaluation.answers import Answers
from fl.evaluation.fairness import fairness, groups_of, rates
from fl.signature import Signature

fair = pytest.importorskip("fairlearn.metrics", reason="extra explain is not installed")


def drawn(num_classes: int = 2, n: int = 400) -> tuple[Answers, np.ndarray]:
    random = np.random.default_rng(4)
    column = random.integers(0, 3, n).astype(float)
    y = random.integers(0, num_classes, n)
    outputs = random.normal(size=(n, num_classes)).astype(np.float32)
    outputs[np.arange(n), y] += 1.0 + 0.5 * column
    outputs[:, 1] += 0.4 * column
    return Answers(Signature("classification", (4,), "float32", num_classes), outputs, y), column


def test_of_two_classes_every_figure_is_fairlearn_s():
    found, column = drawn()
    mine = fairness(found, "site", column)
    given = (found.y, found.predicted)
    for name in (
        *("demographic_parity_difference", "demographic_parity_ratio"),
        *("equalized_odds_difference", "equalized_odds_ratio"),
    ):
        assert mine[name] == pytest.approx(getattr(fair, name)(*given, sensitive_features=column)), name
    frame = fair.MetricFrame(
        metrics={
            "selection_rate": fair.selection_rate,
            "true_positive_rate": fair.true_positive_rate,
            "false_positive_rate": fair.false_positive_rate,
            "examples": fair.count,
        },
        y_true=found.y, y_pred=found.predicted, sensitive_features=column,
    ).by_group  # fmt: skip
    for row, group in zip(mine["groups"], (0.0, 1.0, 2.0), strict=True):
        assert row["group"] == f"site is {group:g}"
        assert {name: row[name] for name in frame} == pytest.approx(frame.loc[group].to_dict())


def test_of_more_classes_it_is_the_worst_of_them_against_the_others():
    found, column = drawn(num_classes=4)
    mine = fairness(found, "site", column, class_names=("a", "b", "c", "d"))
    theirs = {
        c: fair.equalized_odds_difference(found.y == c, found.predicted == c, sensitive_features=column)
        for c in range(4)
    }
    assert mine["equalized_odds_difference"] == pytest.approx(max(theirs.values()))
    assert mine["answer"] == "abcd"[max(theirs, key=theirs.__getitem__)]
    parity = [fair.demographic_parity_difference(found.y == c, found.predicted == c, sensitive_features=column)
              for c in range(4)]  # fmt: skip
    assert mine["demographic_parity_difference"] == pytest.approx(max(parity))


def test_a_group_without_positives_has_no_true_positive_rate():
    one = rates(np.array([1, 0, 0, 0]), np.array([1, 0, 1, 0]), np.array(["a", "a", "b", "b"]))
    assert one.true_positive[0] == 1 and np.isnan(one.true_positive[1]) and one.false_positive.tolist() == [0, 0.5]
    assert one.parity_difference == 0 and one.odds_difference == 0.5


def test_a_regression_has_answers_and_errors_by_group():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    found = Answers(Signature("regression", (1,), "float32", 1), (y + np.array([0, 0, 1, 1]))[:, None], y)
    mine = fairness(found, "sex", np.array([0.0, 0, 1, 1]))
    assert mine["mae_difference"] == 1 and mine["mean_answer_difference"] == 3


def test_missing_values_are_a_group_and_measurements_are_none():
    assert set(groups_of("sex", np.array([0.0, 1, np.nan]))) == {"sex is 0", "sex is 1", "sex is missing"}
    with pytest.raises(BadInput, match="--sensitive: got age, which has 90 values, allowed: a column of 2 to 20"):
        groups_of("age", np.arange(90.0))
