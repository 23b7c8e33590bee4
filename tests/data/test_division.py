"""dataset.split: what a client trains on, validates and tests on, by ratio, label, time or group, as a run deals it."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compose import compose
from experiments.prepare import load_data, prepare_data
from experiments.rules import check
from fl.data.centre import open_centre
from fl.data.store import open_store
from fl.errors import BadInput

PATIENTS = 12


@pytest.fixture
def visits(tmp_path, monkeypatch):
    """visits.csv: visits of patients at three sites, in no order, each on another day; ``number`` says which row."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    days = random.permutation(np.arange("2020-01-01", "2020-10-27", dtype="datetime64[D]"))
    rows = [
        f"{i},{day},p{i % PATIENTS},{int(random.random() < 0.2)},{'abc'[i % 3]}" for i, day in enumerate(days.tolist())
    ]
    (tmp_path / "visits.csv").write_text("\n".join(["number,day,patient,ill,site", *rows]) + "\n")
    return days


def dealt(tmp_path, *choices):
    """The numbers of the rows of each client's parts, by client, and the labels of these."""
    return parts_of(prepared(tmp_path, *choices))


def prepared(tmp_path, *choices):
    data = ("dataset=csv", "dataset.path=visits.csv", "dataset.label=ill", "dataset.client=site")
    settings = compose([*data, "dataset.features=[number]", f"run_dir={tmp_path / 'run'}", *choices])
    check(settings)
    return prepare_data(settings, load_data(settings), centre=tmp_path / "centre", devices=tmp_path / "devices")


def parts_of(prepared):
    store = open_store(prepared.devices_dir)
    clients = [store.partition(c) for c in range(store.num_clients)]
    parts = [[np.asarray(part.x[:, 0], int) for part in (c.train, c.validation, c.test)] for c in clients]
    return parts, [[np.asarray(part.y) for part in (c.train, c.validation, c.test)] for c in clients]


def test_by_time_nobody_trains_on_what_is_later_than_its_test(tmp_path, visits):
    parts, _ = dealt(tmp_path, "dataset.split=time", "dataset.split_by=day")
    assert len(parts) == 3
    for train, validation, test in parts:
        assert visits[train].max() < visits[validation].min() <= visits[validation].max() < visits[test].min()
        assert len(test) == pytest.approx(0.1 * (len(train) + len(validation) + len(test)), abs=1)


def test_by_group_no_patient_is_in_two_parts(tmp_path, visits):
    parts, _ = dealt(tmp_path, "dataset.split=group", "dataset.split_by=patient")
    for found in parts:
        patients = [set(part % PATIENTS) for part in found]
        assert all(patients) and sum(map(len, patients)) == len(set.union(*patients))


def servers(tmp_path, *choices):
    """The numbers of the rows of the server's public part and its test, and those of each client's parts."""
    made = prepared(tmp_path, *choices)
    centre = open_centre(made.centre_dir)
    own = [np.asarray(part.x[:, 0], int) for part in (centre.public, centre.test)]
    return *own, parts_of(made)[0]


@pytest.mark.parametrize("dealing", [(), ("partition=iid", "num_clients=5")], ids=["natural", "iid"])
def test_by_time_the_servers_test_is_the_latest_and_its_public_part_the_earliest(tmp_path, visits, dealing):
    public, test, parts = servers(
        tmp_path, "dataset.split=time", "dataset.split_by=day", "dataset.public_fraction=0.1", *dealing
    )
    rest = np.concatenate([part for client in parts for part in client])
    assert sorted([*public, *test, *rest]) == list(range(len(visits)))
    assert len(public) == pytest.approx(30, abs=1) and len(test) == pytest.approx(30, abs=1)
    assert visits[public].max() < visits[rest].min() <= visits[rest].max() < visits[test].min()


@pytest.mark.parametrize("dealing", [(), ("partition=iid", "num_clients=3")], ids=["natural", "iid"])
def test_by_group_no_patient_is_at_the_server_and_at_a_client_or_trained_on_and_tested_on(tmp_path, visits, dealing):
    """Dealt at random a patient's visits are at several clients, and then in the same part of each."""
    public, test, parts = servers(
        tmp_path, "dataset.split=group", "dataset.split_by=patient", "dataset.public_fraction=0.1", *dealing
    )
    places = [public, test, *(np.concatenate([client[part] for client in parts]) for part in range(3))]
    assert sorted(np.concatenate(places)) == list(range(len(visits)))
    patients = [set((rows % PATIENTS).tolist()) for rows in places]
    assert all(patients) and sum(map(len, patients)) == PATIENTS


def test_stratified_the_servers_parts_have_every_label_by_its_share(tmp_path, visits):
    made = prepared(tmp_path, "dataset.split=stratified", "dataset.public_fraction=0.1")
    centre, (_, labels) = open_centre(made.centre_dir), parts_of(made)
    ill = [np.asarray(part.y) for part in (centre.public, centre.test)]
    share = np.concatenate([*ill, *(part for client in labels for part in client)]).mean()
    for part in ill:
        assert part.sum() == pytest.approx(share * len(part), abs=1) and part.sum()


def test_a_client_whose_rows_are_all_late_is_named_and_nothing_is_written(tmp_path, visits):
    lines = (tmp_path / "visits.csv").read_text().splitlines()
    lines += [f"{300 + i},2021-01-0{i + 1},p1,1,new" for i in range(5)]
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    message = r"held_out_fraction: got client \d+ \(new\) with all its rows after the start of the server's test"
    with pytest.raises(BadInput, match=message):
        dealt(tmp_path, "dataset.split=time", "dataset.split_by=day")
    assert not (tmp_path / "centre").exists()


def test_stratified_the_rare_class_is_in_every_part_by_its_share(tmp_path, visits):
    _, labels = dealt(tmp_path, "dataset.split=stratified")
    for found in labels:
        share = np.concatenate(found).mean()
        for part in found:
            assert part.sum() == pytest.approx(share * len(part), abs=1) and part.sum()


def test_ratio_is_as_ever_and_others_are_other_data(tmp_path, visits):
    plain = dealt(tmp_path / "a")[0]
    same = dealt(tmp_path / "b", "dataset.split=ratio")[0]
    assert all(
        np.array_equal(a, b) for one, two in zip(plain, same, strict=True) for a, b in zip(one, two, strict=True)
    )
    prints = {
        open_store(tmp_path / name / "devices").fingerprint
        for name, split in (("a", ""), ("b", ""), ("c", "dataset.split=stratified"))
        if not split or dealt(tmp_path / name, split)
    }
    assert len(prints) == 2


def test_the_column_is_no_input_unless_it_is_asked_for(tmp_path, visits):
    data = ("dataset=csv", "dataset.path=visits.csv", "dataset.label=ill", "dataset.client=site", "dataset.split=group")
    settings = compose([*data, "dataset.split_by=patient", "dataset.features=null", f"run_dir={tmp_path / 'run'}"])
    with pytest.raises(BadInput, match=r"dataset\.features: got column 'day'"):
        load_data(settings)
    settings["dataset"]["split_by"] = "number"
    settings["dataset"]["features"] = ["number"]
    assert load_data(settings).signature.feature_names == ("number",)


def test_a_column_of_a_shipped_table(tmp_path):
    settings = compose(
        ["dataset=heart_disease", "dataset.split=group", "dataset.split_by=age", f"run_dir={tmp_path / 'run'}"]
    )
    prepared = prepare_data(settings, load_data(settings), centre=tmp_path / "centre", devices=tmp_path / "devices")
    age, store = prepared.signature.feature_names.index("age"), open_store(prepared.devices_dir)
    for client in range(4):
        found = store.partition(client)
        ages = [set(part.x[:, age].tolist()) for part in (found.train, found.validation, found.test)]
        assert all(ages) and not ages[0] & ages[1] and not (ages[0] | ages[1]) & ages[2]


@pytest.mark.parametrize(
    "choices, message",
    [
        (["dataset.split=month"], "dataset.split: got month, allowed: one of ratio, stratified, time, group"),
        (["dataset.split=time"], "dataset.split_by: got null, allowed: a column, for dataset.split=time"),
        (["dataset.split_by=day"], "dataset.split_by: got day, allowed: null, or dataset.split=time or group"),
        (
            ["dataset.split=time", "dataset.split_by=dya"],
            "dataset.split_by: got dya, allowed: a column of .*visits.csv",
        ),
        (["dataset.split=time", "dataset.split_by=patient"], "column 'patient' of type VARCHAR .* numbers or dates"),
        (["dataset.split=stratified", "dataset.task=regression"], "dataset.split: got stratified, .*regression"),
        (["dataset.split=stratified", "partition=iid", "num_clients=900"], "got stratified, allowed: ratio, or a part"),
    ],
)
def test_what_cannot_be_divided_is_named_before_anything_is_written(tmp_path, visits, choices, message):
    with pytest.raises(BadInput, match=message):
        dealt(tmp_path, *choices)
    assert not (tmp_path / "centre").exists()


def test_an_empty_time_is_named_by_its_row(tmp_path, visits):
    lines = (tmp_path / "visits.csv").read_text().splitlines()
    lines[7] = lines[7].replace(lines[7].split(",")[1], "")
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=r"dataset\.split_by: got column 'day' is empty in data row 7"):
        dealt(tmp_path, "dataset.split=time", "dataset.split_by=day")
