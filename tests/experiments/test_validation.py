"""`fl data validate` as it is typed: rules inferred, a bad batch caught and left out, the good rest trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from experiments import cli
from experiments.lifecycle.pipeline import SKIPPED
from fl.data.store import open_store
from fl.registry import Registry

SITES = ("basel", "bonn", "bern", "brno")
TABLE = ("csv", "dataset.label=ill", "dataset.client=site")


@pytest.fixture
def fl(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = cli.run(list(arguments))
        return status, *capsys.readouterr()

    return run


def rows_of(site, seed=0):
    random = np.random.default_rng([SITES.index(site), seed])
    age, weight = np.clip(random.normal(50, 10, 90), 20, 90).round(1), np.clip(random.normal(75, 10, 90), 40, 120)
    return [f"{a},{w:.1f},{int(a + w > 125)},{site}" for a, w in zip(age, weight, strict=True)]


def write(path, sites):
    path.write_text("\n".join(["age,weight,ill,site", *(row for rows in sites.values() for row in rows)]) + "\n")


@pytest.fixture
def tables(tmp_path):
    """good.csv; bad.csv, where bonn weighs in grams; rest.csv, without bonn."""
    sites = {site: rows_of(site) for site in SITES}
    write(tmp_path / "good.csv", sites)
    grams = [f"{a},{1000 * float(w):.0f},{ill},{site}" for a, w, ill, site in (row.split(",") for row in sites["bonn"])]
    write(tmp_path / "bad.csv", {**sites, "bonn": grams})
    del sites["bonn"]
    write(tmp_path / "rest.csv", sites)


def test_a_bad_batch_is_caught_and_not_trained_on_and_the_good_rest_is(fl, tables, tmp_path):
    status, out, _ = fl("data", "validate", *TABLE, "dataset.path=good.csv", "--rules", "rules.yaml", "--infer")
    assert (status, out.strip()) == (0, str(tmp_path / "rules.yaml"))
    status, out, _ = fl("data", "validate", *TABLE, "dataset.path=good.csv", "--rules", "rules.yaml")
    assert (status, out) == (0, "4 clients keep all rules\n")
    caught = ("data", "validate", *TABLE, "dataset.path=bad.csv", "--rules", "rules.yaml", "--quarantine", "q.json")
    status, out, _ = fl(*caught, "--json")
    found = json.loads(out)
    assert status == 1
    assert {(v["client_name"], v["column"], v["rule"]) for v in found["violations"]} == {
        ("bonn", "weight", rule) for rule in ("unit", "range", "drift")
    }
    assert list(json.loads((tmp_path / "q.json").read_text())["clients"]) == ["2"]
    status, out, _ = fl(*caught)
    assert status == 1 and "2 bonn" in out and "values look multiplied by about 992" in out

    trained = {}
    for name, more in (("bad", ("dataset.quarantine=q.json",)), ("rest", ())):
        run = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false", f"run_dir={name}", "registry_dir=r")
        status, _, err = fl("simulate", f"dataset={TABLE[0]}", *TABLE[1:], f"dataset.path={name}.csv", *run, *more)
        assert status == 0, err
        store = open_store(tmp_path / name / "devices" / "partitions")
        assert store.num_clients == 3 and float(np.nanmax(store.x)) < 1000
        run_id = json.loads((tmp_path / name / "run.json").read_text())["run_id"]
        trained[name] = [version.model_sha256 for version in Registry(tmp_path / "r").versions(run_id)]
    assert trained["bad"] == trained["rest"], "as if the bad batch had never been there"


def test_a_quarantine_is_of_one_data_set_alone(fl, tables, tmp_path):
    fl("data", "validate", *TABLE, "dataset.path=good.csv", "--rules", "rules.yaml", "--infer")
    fl("data", "validate", *TABLE, "dataset.path=bad.csv", "--rules", "rules.yaml", "--quarantine", "q.json")
    status, _, err = fl("data", "show", *TABLE, "dataset.path=rest.csv", "dataset.quarantine=q.json")
    assert status == 2 and "dataset.quarantine: got" in err and "of other data or clients" in err
    status, out, _ = fl("data", "show", *TABLE, "dataset.path=bad.csv", "dataset.quarantine=q.json", "--json")
    facts = json.loads(out)
    assert (facts["quarantined_clients"], facts["quarantined_examples"]) == ([2], 90)
    pipeline = ("lifecycle", f"dataset={TABLE[0]}", *TABLE[1:], "dataset.path=bad.csv", "stage=split", "run_dir=p")
    pipeline = (*pipeline, "dataset.quarantine=q.json", "--json")
    became = []
    for edited in (False, False, True):
        if edited:
            (tmp_path / "q.json").write_text(
                json.dumps({**json.loads((tmp_path / "q.json").read_text()), "clients": {}})
            )
        status, out, err = fl(*pipeline)
        assert status == 0, err
        became.append([(stage["stage"], stage["what"]) for stage in json.loads(out)["stages"]])
    assert all(what == "did" for _, what in became[0])
    assert all(what == SKIPPED for _, what in became[1])
    assert became[2] == [(stage, SKIPPED if stage == "ingest" else "did") for stage, _ in became[0]]
    assert "split" in dict(became[2]), "the file's content counts, not its name"


def test_a_dealt_client_is_left_out_too(fl, tmp_path):
    deal = ("synthetic", "dataset.clients=4", "dataset.dimension=3", "partition=dirichlet", "num_clients=5")
    fl("data", "validate", *deal, "--rules", "rules.yaml", "--infer")
    rules = yaml.safe_load((tmp_path / "rules.yaml").read_text())
    rules["columns"]["x1"]["range"] = [-0.5, 0.5]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    status, out, _ = fl("data", "validate", *deal, "--rules", "rules.yaml", "--quarantine", "q.json", "--json")
    assert status == 1 and {v["rule"] for v in json.loads(out)["violations"]} == {"range"}
    kept = json.loads((tmp_path / "q.json").read_text())
    kept["clients"] = {"3": kept["clients"]["3"]}
    (tmp_path / "q.json").write_text(json.dumps(kept))
    before, after = (
        json.loads(fl("data", "show", *deal, *more, "--json")[1]) for more in ((), ("dataset.quarantine=q.json",))
    )
    assert after["quarantined_clients"] == [3] and after["num_clients"] == before["num_clients"] - 1
    assert after["examples"] + after["quarantined_examples"] == before["examples"]


def test_what_is_found_is_kept_with_the_data_set(fl, tables):
    small, kept = (*TABLE, "dataset.path=good.csv"), ("--registry", "r")
    assert fl("data", "profile", *small, *kept)[0] == 0
    fl("data", "validate", *small, "--rules", "rules.yaml", "--infer")
    assert fl("data", "validate", *small, "--rules", "rules.yaml", *kept)[0] == 0
    status, out, _ = fl("data", "show", "good@", *kept, "--json")
    found = json.loads(out)
    assert status == 0 and found["used_by"] == [] and list(found["evidence"]) == ["profile", "validate"]
    assert [c["name"] for c in found["evidence"]["profile"]["columns"]] == ["age", "weight", "ill"]
    assert found["evidence"]["validate"]["violations"] == []
    assert "good@" in fl("data", "list", *kept)[1]
    status, _, err = fl("data", "profile", *small, "--registry", "/proc/x")
    assert status == 2 and "--registry: got /proc/x" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--rules", "none.yaml"), "--rules: got none.yaml, which is no file"),
        (("--rules", "good.csv"), "good.csv: got no section columns"),
        (("--rules", "good.csv", "--infer"), "--rules: got good.csv, which exists"),
    ],
)
def test_bad_input_is_named(fl, tables, tmp_path, arguments, message):
    before = sorted(tmp_path.iterdir())
    status, _, err = fl("data", "validate", *TABLE, "dataset.path=good.csv", *arguments)
    assert status == 2 and message in err
    assert sorted(tmp_path.iterdir()) == before
