"""What a column tells of the label, by merged statistics: the figures of pooled rows, and the columns they choose."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from clients.grid import UnitGrid
from clients.inprocess import InProcess
from clients.setting import open_setting
from experiments.compose import compose
from fl.data.recipes import fit_recipe, read_recipe
from fl.data.relevance import relevance
from fl.data.store import write_store
from fl.errors import BadInput
from fl.signature import Signature
from server.query import asker

NAMES = ("linear", "noise", "square", "constant")
PARTS = np.array([[90, 10, 10], [150, 0, 5], [60, 5, 5]])
TRAIN = np.concatenate([np.repeat([True, False, False], sizes) for sizes in PARTS])


def rows():
    draw = np.random.default_rng(3)
    n = int(PARTS.sum())
    x = np.stack([draw.normal(size=n), draw.normal(size=n), draw.normal(size=n), np.ones(n)], axis=1)
    y = (x[:, 0] + 2 * (np.square(x[:, 2]) - 1) + 0.3 * draw.normal(size=n) > 0).astype(np.int64)
    x[::9, 0] = np.nan
    return x.astype(np.float32), y


def asked(folder, x, y, task="classification"):
    signature = Signature(task, (4,), "float32", 2 if task == "classification" else 1, feature_names=NAMES)
    write_store(folder / "p", x=x, y=y, parts=PARTS, signature=signature, name="t", fingerprint="0")
    settings = {**compose(["dataset=heart_disease", f"run_dir={folder / 'run'}"]), "num_clients": len(PARTS)}
    setting = open_setting(settings, partitions=folder / "p", states=folder / "s")
    return asker(UnitGrid(run_id="1", num_clients=len(PARTS), unit_size=2, executor=InProcess(setting)))


def test_mutual_information_is_that_of_the_pooled_training_rows(tmp_path):
    x, y = rows()
    found = relevance(asked(tmp_path, x, y), [0, 1, 2, 3], label=4, by="mutual_information", bins=5)
    for c in range(4):
        values = x[TRAIN, c].astype(np.float64)
        known = np.sort(values[np.isfinite(values)])
        cuts = sorted({known[int(np.ceil(i / 5 * len(known) - 1e-9)) - 1] for i in range(1, 5)})
        bins = np.where(np.isfinite(values), np.searchsorted(cuts, values, side="right"), 99)
        assert found[c] == pytest.approx(mutual_info_score(bins, y[TRAIN]), abs=1e-9)
    assert found[3] == 0.0 and found[2] > found[0] > found[1]


def test_correlation_is_that_of_the_pooled_training_rows(tmp_path):
    x, y = rows()
    found = relevance(asked(tmp_path, x, y), [0, 1, 2, 3], label=4, by="correlation")
    known = TRAIN & np.isfinite(x[:, 0])
    assert found[0] == pytest.approx(abs(np.corrcoef(x[known, 0], y[known])[0, 1]), abs=1e-6)
    assert found[3] == 0.0
    assert found[2] < found[0]  # it sees nothing that is not linear


def test_a_recipe_keeps_the_columns_that_tell_most(tmp_path):
    ask = asked(tmp_path, *rows())

    def features(**options):
        return fit_recipe(read_recipe([{"select": options}]), ask, inputs=NAMES).features

    assert features(most=2) == ("linear", "square")
    assert features(most=1) == ("square",)
    assert features(most=1, by="correlation") == ("linear",)
    assert features(most=9) == NAMES
    assert features(most=1, columns=["noise", "linear"]) == ("linear", "square", "constant")


def test_labels_that_do_not_fit_are_refused(tmp_path):
    x, y = rows()
    numbers = asked(tmp_path / "n", x, y + 0.5, "regression")
    with pytest.raises(BadInput, match=r"select\.by: .*allowed: correlation"):
        fit_recipe(read_recipe([{"select": {"most": 1}}]), numbers, inputs=NAMES)
    three = asked(tmp_path / "3", x, y + (x[:, 1] > 0))
    with pytest.raises(BadInput, match=r"select\.by: .*allowed: mutual_information"):
        fit_recipe(read_recipe([{"select": {"most": 1, "by": "correlation"}}]), three, inputs=NAMES)
    with pytest.raises(BadInput, match=r"select\.most"):
        fit_recipe(read_recipe([{"select": {"most": 0}}]), three, inputs=NAMES)
