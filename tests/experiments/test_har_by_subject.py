"""Windows of sensors as a table: what is in a row, and whose it is. The real file where it is there."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import run as fl
from experiments.har_by_subject import load
from fl.errors import BadInput
from fl.files import read_json

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "har_phone_watch_by_subject.npz"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two subjects, the first with two executions of 10 and 7 samples, the second with one of 9."""
    subject, execution = np.repeat([4, 4, 9], [10, 7, 9]), np.repeat([1, 2, 1], [10, 7, 9])
    signal = np.random.default_rng(0).integers(-100, 100, (26, 2)).astype(np.int16)
    label = np.repeat([0, 1, 0, 1], [9, 1, 7, 9]).astype(np.uint8)
    made = {"signal_sw": signal, "label_sw": label, "subject_sw": subject, "execution_sw": execution}
    common = {"scale": np.array([0.5, 2.0], np.float32), "classes": np.array(["SIT", "WALK"])}
    np.savez(tmp_path / "small.npz", **made, **common, channels=np.array(["a", "b"]))
    return tmp_path / "small.npz"


def test_a_row_is_a_window_of_one_execution_of_one_subject(small: Path) -> None:
    data = load(path=str(small), device="watch", window=4, step=4)
    assert data.client is not None and data.client.tolist() == [0, 0, 0, 1, 1]
    assert data.client_names == ("subject 4", "subject 9")
    assert data.y.tolist() == [0, 0, 0, 1, 1] and data.signature.class_names == ("SIT", "WALK")
    with np.load(small) as file:
        signal = file["signal_sw"] * file["scale"]
    window = signal[10:14]  # the third: the first of the second execution
    names = dict(zip(data.signature.feature_names, data.x[2], strict=True))
    assert names["a mean"] == pytest.approx(window[:, 0].mean(), rel=1e-5)
    assert names["b deviation"] == pytest.approx(window[:, 1].std(), rel=1e-5)
    assert (names["a smallest"], names["b largest"]) == (window[:, 0].min(), window[:, 1].max())
    assert names["b change"] == pytest.approx(np.abs(np.diff(window[:, 1])).mean(), rel=1e-5)
    assert len(load(path=str(small), device="watch", window=4, step=2).y) == 4 + 2 + 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"path": None}, "dataset.function_arguments.path: got null, allowed: the path of har_phone"),
        ({"device": "ring"}, "dataset.function_arguments.device: got ring, allowed: watch, phone"),
        ({"window": 0}, "dataset.function_arguments.window: got 0, allowed: a whole number"),
    ],
)
def test_what_cannot_be_read_is_named(small: Path, change: dict[str, object], message: str) -> None:
    given = {"path": str(small), "device": "watch", "window": 4, "step": 4} | change
    with pytest.raises(BadInput) as raised:
        load(**given)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data is not there")
@pytest.mark.parametrize("device, rows", [("watch", 1942), ("phone", 1912)])
def test_the_real_file_has_23_subjects_and_five_activities(device: str, rows: int) -> None:
    data = load(path=str(REAL), device=device, window=128, step=128)
    assert data.x.shape == (rows, 30) and len(data.client_names) == 23
    assert data.signature.num_outputs == 5 and np.isfinite(data.x).all()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data is not there")
def test_people_who_were_never_seen_gain_from_a_model_of_their_own(tmp_path: Path) -> None:
    """The experiment of RESULTS.md, one seed of it."""
    registry = f"{tmp_path / 'registry'}"
    words = [f"dataset.function_arguments.path={REAL}", f"run_dir={tmp_path / 'har'}", f"registry_dir={registry}"]
    assert fl(["simulate", "experiment=har_by_subject", *words]) == 0
    assert fl(["clients", "har:best", "--registry", registry]) == 0
    rows = [json.loads(line) for line in (tmp_path / "har" / "clients.jsonl").read_text().splitlines()]
    assert len(rows) == 23 and sum(not row["seen"] for row in rows) == 5
    told = read_json(tmp_path / "har" / "clients.json")["distribution"]
    unseen = {model: facts["mean"] for model, facts in told["unseen"]["accuracy"].items()}
    assert unseen["personal"] > unseen["global"] > 0.75
    assert told["seen"]["accuracy"]["global"]["mean"] > told["seen"]["accuracy"]["local"]["mean"] > 0.7
