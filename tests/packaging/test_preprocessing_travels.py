"""Preprocessing travels: hospitals' raw rows with missing values go in, and every format gives torch's answers.

The model is trained by a run on the shipped heart-disease table, with a recipe fitted by queries; what is exported is a
version of the registry, and what is asked are test rows as the hospitals store them.
"""

import importlib.util
import shutil

import numpy as np
import pytest

from experiments.compose import compose
from experiments.export import export, opened
from experiments.run import simulate
from fl.models.arrays import load_parameters
from fl.models.evaluate import predict
from fl.packaging.export import FORMATS

RECIPE = (
    "dataset.recipe=[{aggregate: {columns: [trestbps, thalach], by: mean, into: load}}, {impute: {indicator: true}}, "
    "{curve: {columns: [chol], by: log1p}}, {encode: {columns: [cp, thal]}}, {scale: {}}]"
)
KINDS = ("onnx", "pmml", "whl", "c", "pyz", "pfa")


@pytest.fixture
def version(tmp_path):
    """A trained table model and the raw test rows."""
    choices = ["dataset=heart_disease", "num_rounds=3", "engine=inprocess", "server.tensorboard=false", RECIPE]
    simulate(compose([*choices, f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'registry'}"]))
    return opened("run:best", tmp_path / "registry")


@pytest.mark.slow
def test_raw_rows_in_the_same_answers_out(version, tmp_path):
    kinds = [kind for kind in KINDS if kind != "pmml" or shutil.which("java")]
    if not importlib.util.find_spec("titus"):
        kinds.remove("pfa")
    x, signature = version.examples, version.signature
    missing = np.isnan(x)
    assert missing.any(axis=0).sum() > 5 and missing.any(axis=1).mean() > 0.3
    assert signature.recipe and len(signature.feature_names) == x.shape[1]
    module = version.module
    load_parameters(module, version.parameters)
    expected = predict(module, x, signature)
    assert len(set(expected.argmax(axis=1))) > 1
    done = export("run:best", formats=kinds, output=tmp_path / "out", registry=tmp_path / "registry")
    assert [one.format for one in done] == kinds
    for one in done:
        found = FORMATS[one.format].read(one.path, module)(x)
        answers = FORMATS[one.format].answers(expected, signature)
        assert np.allclose(found, answers, rtol=1e-5, atol=1e-5), one.format
        # A file that lost its preprocessing, or takes a missing value for 0, would answer otherwise.
        assert not np.allclose(FORMATS[one.format].read(one.path, module)(np.nan_to_num(x)), answers, atol=1e-3)
