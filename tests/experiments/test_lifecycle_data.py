"""The stages that look into private data: profile, validate, wrangle. What they find, and what then is trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from experiments import cli
from fl.data.store import open_store
from fl.files import read_json
from fl.registry import Registry

SITES = ("basel", "bonn", "bern", "brno")
TABLE = ("dataset=csv", "dataset.path=t.csv", "dataset.label=ill", "dataset.client=site")
QUICK = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")
AFTER_QUARANTINE = ["wrangle", "split", "select", "train", "evaluate", "accept", "package", "register"]


@pytest.fixture
def fl(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = cli.run(list(arguments))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def lifecycle(fl):
    """Walks the pipeline in ``p``: exit status, the stages by name, standard error."""

    def walk(*overrides, data=TABLE):
        status, out, err = fl("lifecycle", "--json", *data, *QUICK, "run_dir=p", "registry_dir=r", *overrides)
        return status, {one["stage"]: one for one in json.loads(out)["stages"]} if out else {}, err

    return walk


def did(stages):
    return [name for name, one in stages.items() if one["what"] == "did"]


def write(path, *, grams=(), without=(), columns="age,weight,ill,site"):
    """People of four sites, who are ill by age and weight; some sites weigh in grams."""
    rows = []
    for number, site in enumerate(SITES):
        random = np.random.default_rng(number)
        age, weight = np.clip(random.normal(50, 10, 90), 35, 65).round(1), np.clip(random.normal(75, 10, 90), 40, 120)
        unit = 1000 if site in grams else 1
        told = zip(age, weight, strict=True)
        rows += [f"{a},{unit * round(w, 1):g},{int(a + w > 125)},{site}" for a, w in told if site not in without]
    path.write_text("\n".join([columns, *rows]) + "\n")


def evidence(tmp_path, stage):
    return read_json(tmp_path / "p" / stage / "evidence.json")


def test_a_bad_batch_is_quarantined_and_the_good_rest_is_trained_on(fl, lifecycle, tmp_path):
    write(tmp_path / "t.csv")
    status, stages, err = lifecycle()
    assert status == 0 and stages["validate"]["found"] == "4 clients keep all rules", err
    write(tmp_path / "t.csv", grams=("bonn",))
    status, stages, err = lifecycle()
    assert status == 0, err
    assert stages["validate"]["found"].startswith("3 clients keep all rules; 1 of 4 clients quarantined: 2 bonn")
    assert all(rule in stages["validate"]["found"] for rule in ("weight", "unit", "range"))
    store = open_store(tmp_path / "p" / "split" / "devices" / "partitions")
    assert store.num_clients == 3 and float(store.x.max()) < 1000

    write(tmp_path / "rest.csv", without=("bonn",))
    rest = [text.replace("t.csv", "rest.csv") for text in TABLE]
    assert fl("simulate", *rest, *QUICK, "run_dir=rest", "registry_dir=r")[0] == 0
    plain = read_json(tmp_path / "rest" / "summary.json")["model_sha256"]
    (version,) = [v for v in Registry("r").versions(evidence(tmp_path, "train")["run_id"]) if v.round == 2]
    assert version.model_sha256 == plain, "as if the bad batch had never been there"

    run = tmp_path / "p" / "runs" / evidence(tmp_path, "train")["run_id"]
    (run / "devices" / "prepared.json").unlink()
    assert fl("resume", str(run))[0] == 0
    assert open_store(run / "devices" / "partitions").num_clients == 3, "nor does it come back when a run is mended"


def test_an_edited_rule_repeats_validate_and_what_depends_on_what_it_says(lifecycle, tmp_path):
    write(tmp_path / "t.csv")
    assert lifecycle()[0] == 0
    rules = tmp_path / "p" / "validate" / "rules.yaml"
    text = rules.read_text()
    assert "missing_share: 0.1" in text
    rules.write_text(text.replace("missing_share: 0.1", "missing_share: 0.2", 1) + "# looser\n")
    status, stages, _ = lifecycle()
    # Nobody else is left out: the model is the same, and only what tells of the rules is written anew.
    assert status == 0 and did(stages) == ["validate", "package", "register"]
    assert stages["validate"]["why"] == "rules.yaml was edited" and rules.read_text().endswith("# looser\n")
    edited = yaml.safe_load(text)
    edited["label"]["smallest_share"] = 2 * edited["label"]["smallest_share"] + 0.001  # half of the least that was seen
    rules.write_text(yaml.safe_dump(edited))
    status, stages, err = lifecycle()
    assert status == 0 and did(stages) == ["validate", *AFTER_QUARANTINE], err
    assert evidence(tmp_path, "split")["num_clients"] == 3
    assert not did(lifecycle()[1])


@pytest.mark.slow
def test_rules_may_be_given_and_a_user_may_leave_somebody_out(fl, lifecycle, tmp_path):
    write(tmp_path / "t.csv")
    words = [text.replace("dataset=", "") if text.startswith("dataset=") else text for text in TABLE]
    assert fl("data", "validate", *words, "--rules", "rules.yaml", "--infer")[0] == 0
    write(tmp_path / "t.csv", grams=("bonn", "brno"))
    words = ("data", "validate", *words, "--rules", "rules.yaml", "--quarantine", "q.json")
    assert fl(*words)[0] == 1
    kept = json.loads((tmp_path / "q.json").read_text())
    assert list(kept["clients"]) == ["2", "3"]
    del kept["clients"]["3"]
    (tmp_path / "q.json").write_text(json.dumps(kept))
    status, stages, err = lifecycle("rules=rules.yaml", "dataset.quarantine=q.json", "stage=split")
    assert status == 0 and "3 brno (weight" in stages["validate"]["found"], err
    assert evidence(tmp_path, "split")["quarantined_clients"] == [2, 3]
    assert not (tmp_path / "p" / "validate" / "rules.yaml").exists()
    # The command says the same of the same: a client keeps its number when another is left out.
    assert fl(*words, "dataset.quarantine=q.json")[0] == 1
    assert list(json.loads((tmp_path / "q.json").read_text())["clients"]) == ["2", "3"]


def test_data_that_break_rules_as_such_are_not_trained_on(lifecycle, tmp_path):
    write(tmp_path / "t.csv")
    assert lifecycle("stage=split")[0] == 0
    write(tmp_path / "t.csv", columns="age,mass,ill,site")
    for _ in range(2):
        status, stages, _ = lifecycle()
        assert status == 1 and list(stages)[-1] == "validate" and stages["validate"]["what"] == "stopped here"
        assert "weight: schema" in stages["validate"]["found"] and "mass: schema" in stages["validate"]["found"]
    write(tmp_path / "t.csv", grams=SITES)
    status, stages, _ = lifecycle()
    assert status == 1 and "every client breaks a rule" in stages["validate"]["found"]


@pytest.mark.slow
def test_other_clients_get_rules_of_their_own(lifecycle, tmp_path):
    data = ("dataset=synthetic", "dataset.clients=4", "dataset.dimension=3", "dataset.classes=2", "stage=validate")
    assert lifecycle(data=data)[0] == 0
    first = evidence(tmp_path, "validate")
    more = ("partition=dirichlet", "num_clients=12")
    assert lifecycle(*more, data=data)[0] == 0
    second = evidence(tmp_path, "validate")
    assert first["rules_are"] == second["rules_are"] == "inferred" and first["rules"] != second["rules"]
    assert not second["quarantined"]


@pytest.mark.slow
def test_a_recipe_is_fitted_once_and_gives_the_bits_of_a_plain_run(fl, lifecycle, tmp_path):
    data = ("dataset=heart_disease", "dataset.recipe=[{impute: {indicator: true}}, {encode: {columns: [cp]}}]")
    status, stages, err = lifecycle(data=data)
    assert status == 0 and "features of 13 columns: impute, one_hot, fitted on 582" in stages["wrangle"]["found"], err
    assert fl("simulate", *data, *QUICK, "run_dir=plain", "registry_dir=r")[0] == 0
    run = tmp_path / "p" / "runs" / evidence(tmp_path, "train")["run_id"]
    ends = [read_json(folder / "summary.json")["model_sha256"] for folder in (run, tmp_path / "plain")]
    assert ends[0] == ends[1]
    (impute, *_), store = evidence(tmp_path, "wrangle")["fitted"]["steps"], open_store(run / "devices" / "partitions")
    ages = np.concatenate([store.partition(c).train.x[:, 0] for c in range(4)])
    assert impute["values"][0] == np.nanquantile(ages, 0.5, method="inverted_cdf")


def test_the_constants_of_a_plain_table_are_evidence(lifecycle, tmp_path):
    write(tmp_path / "t.csv")
    assert lifecycle("stage=split")[0] == 0
    store, found = open_store(tmp_path / "p" / "split" / "devices" / "partitions"), evidence(tmp_path, "wrangle")
    ages = np.concatenate([store.partition(c).train.x[:, 0] for c in range(4)]).astype(np.float64)
    assert found["fitted"]["columns"]["age"]["feature_mean"] == pytest.approx(ages.mean())
    assert found["train_examples"] == len(ages)
    page = (tmp_path / "p" / "profile" / "profile.html").read_text()
    assert "csv: profile of private columns" in page and "weight" in page


def test_pictures_pass(lifecycle, tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "i.npz", x=random.integers(0, 255, (60, 8, 8), np.uint8), y=np.arange(60) % 3)
    data = ("dataset=npz", "dataset.path=i.npz", "partition=iid", "num_clients=3", "model=softmax", "client=sgd")
    status, stages, err = lifecycle(data=data)
    assert status == 0, err
    for name in ("profile", "validate", "wrangle"):
        assert stages[name]["found"] == "nothing to do: not a table"
    assert not did(lifecycle(data=data)[1])
