"""`fl lifecycle`: every stage to a registered version, only what changed again, and a broken input for each stage."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from experiments import cli
from experiments.compose import LIFECYCLE, compose
from experiments.lifecycle import pipeline
from experiments.lifecycle.inputs import code_sha256, inputs_of, narrowed
from experiments.lifecycle.stage import Done, Quality, Result, Stage, Work
from experiments.lifecycle.stages import STAGES
from experiments.run import simulate
from fl.bundle import open_bundle
from fl.errors import BadInput
from fl.files import read_json
from fl.registry import Registry

FL = Path(sys.executable).with_name("fl")
NAMES = [stage.name for stage in STAGES]
READ = ["understand", "ingest"]
DATA = ["ingest", "profile", "validate", "wrangle", "split"]
TRAINED = ["train", "evaluate", "accept", "package"]
HEART = ("dataset=heart_disease", "engine=inprocess", "num_rounds=3", "server.tensorboard=false")
Lifecycle = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a pipeline that went through, and its registry."""
    folder = tmp_path_factory.mktemp("lifecycle")
    assert cli.run(["lifecycle", *HEART, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"]) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The same for this test alone; the settings of its training name the registry where it was."""
    shutil.copytree(finished / "heart", tmp_path / "heart")
    return tmp_path


@pytest.fixture
def lifecycle(capsys) -> Lifecycle:
    """Walks the pipeline in ``folder``: exit status, the stages of the JSON by name, standard error."""

    def lifecycle(folder: Path, *overrides: str, registry: Path) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        folders = (f"run_dir={folder}", f"registry_dir={registry}")
        status = cli.run(["lifecycle", "--json", *HEART, *folders, *overrides])
        out, err = capsys.readouterr()
        return status, {one["stage"]: one for one in json.loads(out)["stages"]} if out else {}, err

    return lifecycle


def did(stages: dict[str, Any]) -> list[str]:
    return [name for name, one in stages.items() if one["what"] == "did"]


# From data to a registered version


def test_every_stage_leaves_evidence_that_is_attached_to_the_version(finished):
    registry = Registry(finished / "registry")
    version = registry.version(read_json(finished / "heart" / "register" / "evidence.json")["version"])
    found = registry.evidence(version)
    assert list(found) == sorted(set(NAMES) - {"register"})
    assert (
        found["evaluate"].pop("measured")["latency_seconds"] > 0
    )  # another one each time: in no file that is compared
    for name, evidence in found.items():
        decision = finished / "heart" / name / "decision.json"
        decided = read_json(decision)["evidence"] if decision.is_file() else {}
        assert evidence == {**read_json(finished / "heart" / name / "evidence.json"), **decided}
        assert all(evidence["quality"][part] for part in ("requirement", "risk", "check"))
        assert all(evidence["quality"]["checked"].values())
    assert found["split"]["num_clients"] == 4 and found["train"]["version"] == version.name
    assert not registry.verify()


def test_the_model_has_the_bits_of_a_plain_run(finished, tmp_path):
    folders = (f"run_dir={tmp_path / 'run'}", f"registry_dir={tmp_path / 'registry'}")
    plain = read_json(simulate(compose([*HEART, *folders])) / "summary.json")
    (run,) = (finished / "heart" / "runs").iterdir()
    assert read_json(run / "summary.json")["model_sha256"] == plain["model_sha256"]


def test_the_run_inside_is_a_run_like_any_other(finished, capsys):
    (run,) = (finished / "heart" / "runs").iterdir()
    assert cli.run(["doctor", str(run)]) == 0
    assert cli.run(["replay", str(run), "--round", "2"]) == 0


def test_versions_show_names_the_evidence(finished, capsys):
    capsys.readouterr()
    assert cli.run(["versions", "show", "champion", "--registry", str(finished / "registry")]) == 0
    out = capsys.readouterr().out
    assert all(f"evidence.{name}" in out for name in NAMES if name != "register")


def test_the_data_are_in_the_catalogue(finished, capsys):
    registry, folder = Registry(finished / "registry"), str(finished / "registry")
    (entry,) = registry.datasets()
    assert entry["name"] == "heart_disease" and entry["used_by"] == [registry.version("champion").name]
    assert entry["licence"] == "CC BY 4.0" and len(entry["schema"]) == 13 and entry["schema"][0]["name"] == "age"
    assert all(len(digest) == 64 for digest in entry["sources"].values())
    capsys.readouterr()
    assert cli.run(["data", "list", "--registry", folder]) == 0
    name = f"heart_disease@{entry['version'][:12]}"
    assert name in capsys.readouterr().out
    assert cli.run(["data", "show", name, "--registry", folder, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {**entry, "evidence": registry.dataset_evidence(name)} == shown
    assert list(shown["evidence"]) == ["profile", "validate", "wrangle"]
    assert cli.run(["data", "show", name, "--registry", folder]) == 0
    out = capsys.readouterr().out
    assert "deviation" in out and "thalach" in out and "missing_share: " in out and "nobody breaks a rule" in out
    assert cli.run(["data", "show", "heart_disease@ffff", "--registry", folder]) == 2
    assert name in capsys.readouterr().err


def test_evidence_of_others_changes_nothing_of_the_pipeline(lifecycle, copied, finished):
    shutil.copytree(finished / "registry", copied / "registry")
    run = ("num_rounds=2", "business.owner=me")
    assert lifecycle(copied / "heart", *run, registry=copied / "registry")[0] == 0
    registry = Registry(copied / "registry")
    registry.attach(read_json(copied / "heart" / "register" / "evidence.json")["version"], "audit", {"passed": True})
    status, stages, _ = lifecycle(copied / "heart", *run, registry=copied / "registry")
    assert status == 0 and not did(stages)
    status, stages, err = lifecycle(copied / "heart", run[0], registry=copied / "registry")
    assert status == 0 and did(stages) == ["understand", "package", "register"], err


@pytest.mark.parametrize("of", ["evidence/*/split.json", "datasets/*/*/profile.json"])
def test_damaged_evidence_is_found(finished, tmp_path, of):
    shutil.copytree(finished / "registry", tmp_path / "registry")
    (path,) = (tmp_path / "registry").glob(of)
    path.write_text(path.read_text().replace("clients", "Clients"))
    (problem,) = Registry(tmp_path / "registry").verify()
    assert problem.path == str(path)


# Only what changed


def test_again_at_once_everything_is_skipped_and_nothing_heavy_imported(finished):
    code = (
        "import sys, experiments.cli as c; status = c.run(sys.argv[1:]);"
        "print(status, sorted({'torch', 'flwr', 'ray', 'matplotlib', 'duckdb'} & set(sys.modules)))"
    )
    folders = (f"run_dir={finished / 'heart'}", f"registry_dir={finished / 'registry'}")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "lifecycle", *HEART, *folders],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - began < 5
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stdout.count("skipped") == done.stdout.count("nothing changed") == len(STAGES)


@pytest.mark.parametrize(
    "override, again",
    [
        ("num_rounds=2", [*TRAINED, "register"]),
        ("business.owner=me", ["understand", "package", "register"]),
        ("dataset.test_fraction=0.2", ["validate", "wrangle", "split", "select", *TRAINED, "register"]),
        (
            "dataset.split=stratified",
            [*READ, "profile", "validate", "wrangle", "split", "select", *TRAINED, "register"],
        ),
        ("dataset.recipe=[{impute: {}}]", ["wrangle", "split", "select", *TRAINED, "register"]),
    ],
)
def test_a_changed_setting_repeats_what_reads_it_and_what_depends_on_that(lifecycle, copied, finished, override, again):
    status, stages, _ = lifecycle(copied / "heart", override, registry=finished / "registry")
    assert status == 0 and list(stages) == NAMES
    assert did(stages) == again
    key = override.partition("=")[0]
    assert key in stages[again[0]]["why"]


def test_a_stage_whose_result_is_the_same_ends_the_repeating(lifecycle, copied, finished):
    """Server's seeding decides whether there is a public part; its epochs do not: only those that train read them."""
    status, stages, _ = lifecycle(copied / "heart", "server.seeding_epochs=6", registry=finished / "registry")
    assert status == 0 and did(stages) == ["select", *TRAINED, "register"]


def test_what_was_damaged_is_made_again(lifecycle, copied, finished):
    path = copied / "heart" / "split" / "devices" / "partitions" / "y.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    status, stages, _ = lifecycle(copied / "heart", registry=finished / "registry")
    assert status == 0 and did(stages) == ["split"] and "y.npy" in stages["split"]["why"]


def test_a_version_that_is_gone_is_trained_again(lifecycle, copied):
    status, stages, _ = lifecycle(copied / "heart", registry=copied / "elsewhere")
    assert status == 0 and did(stages) == ["select", *TRAINED, "register"]
    shutil.rmtree(copied / "elsewhere")
    status, stages, _ = lifecycle(copied / "heart", registry=copied / "elsewhere")
    assert status == 0 and stages["train"]["why"] == "what it made, or compared with, is gone"


def test_one_stage_takes_those_that_it_depends_on_along(lifecycle, tmp_path):
    status, stages, _ = lifecycle(tmp_path / "heart", "stage=split", registry=tmp_path / "registry")
    assert status == 0 and did(stages) == DATA  # and not understand, which they do not read
    assert not (tmp_path / "registry" / "versions").exists()


def test_changed_source_code_repeats_the_stage(monkeypatch, finished):
    stage = next(stage for stage in STAGES if stage.name == "split")
    settings = narrowed(compose(HEART, name=LIFECYCLE), stage.reads)
    left = {name: Done(Path(), {}, {"quarantine.json": "a", "features.json": "b"}) for name in stage.before}
    before = inputs_of(stage, settings, left)
    monkeypatch.setattr("experiments.lifecycle.inputs.code_sha256", lambda name: f"other {name}")
    words = pipeline.changed(before, inputs_of(stage, settings, left))
    assert words == [f"code {name}" for name in stage.code]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_names_sources_that_exist_and_stages_before_it(stage):
    assert all(len(code_sha256(name)) == 64 for name in stage.code)
    assert f"experiments.lifecycle.{stage.name}" in stage.code
    assert set(stage.before) <= set(NAMES[: NAMES.index(stage.name)])


@pytest.mark.slow
def test_heart_disease_as_it_is_shipped_within_the_time_that_is_promised(tmp_path):
    """As it is typed: every stage in two minutes, again in five seconds, then one rule changed."""
    folders = (f"run_dir={tmp_path / 'heart'}", f"registry_dir={tmp_path / 'registry'}")
    command = [FL, "lifecycle", "--json", "dataset=heart_disease", *folders]

    def timed():
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return time.monotonic() - began, {one["stage"]: one for one in json.loads(done.stdout)["stages"]}

    seconds, stages = timed()
    assert did(stages) == NAMES and seconds < 120
    seconds, stages = timed()
    assert not did(stages) and seconds < 5
    rules = tmp_path / "heart" / "validate" / "rules.yaml"
    rules.write_text(rules.read_text().replace("leak: 0.99", "leak: 0.98"))
    _, stages = timed()
    assert did(stages) == ["validate", "package", "register"]
    train = read_json(tmp_path / "heart" / "train" / "evidence.json")
    assert Registry(tmp_path / "registry").version(train["version"]).model_sha256 == train["model_sha256"]


@pytest.mark.slow
def test_older_runs_are_told_and_removed_if_asked_and_never_the_champions(lifecycle, tmp_path):
    runs, registry = tmp_path / "heart" / "runs", tmp_path / "registry"
    for seed in (1, 2, 3):
        status, _, err = lifecycle(tmp_path / "heart", f"seed={seed}", registry=registry)
        assert status == 0, err
    first, second, third = (v.run_id for v in Registry(registry).versions() if v.round == 0)
    assert Registry(registry).version("champion").run_id == first
    assert "1 older run that no alias" in err and str(runs) in err
    (runs / "mine").mkdir()
    status, _, err = lifecycle(tmp_path / "heart", "seed=3", "keep_runs=false", registry=registry)
    assert status == 0 and "removed 1 older run" in err
    assert sorted(path.name for path in runs.iterdir()) == sorted([first, third, "mine"])
    assert not Registry(registry).verify() and Registry(registry).versions(second)


def test_help_names_the_stages_in_their_order():
    told = cli.command().commands["lifecycle"].help
    listed = told.partition("In this order: ")[2].partition(".")[0].split(", ")
    assert set(DATA) < set(listed) and listed == [name for name in NAMES if name in listed]


# Interrupts


def test_a_killed_training_goes_on_where_it_was(lifecycle, finished, tmp_path):
    folders = (f"run_dir={tmp_path / 'heart'}", f"registry_dir={tmp_path / 'registry'}")
    fault = {**os.environ, "MEADOW_FAULT": "registry.manifest.renamed#3=kill"}
    killed = subprocess.run(
        [FL, "lifecycle", *HEART, *folders], env=fault, capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -9
    assert not (tmp_path / "heart" / "train").exists()
    status, stages, _ = lifecycle(tmp_path / "heart", registry=tmp_path / "registry")
    assert status == 0 and did(stages) == [*TRAINED, "register"]
    ends = [read_json(f / "heart" / "train" / "evidence.json")["model_sha256"] for f in (tmp_path, finished)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("point", ["stage.evidence.written", "stage.record.begin", "stage.folder.done#2"])
def test_a_killed_stage_leaves_nothing_half_made(lifecycle, tmp_path, point):
    folders = (f"run_dir={tmp_path / 'heart'}", f"registry_dir={tmp_path / 'registry'}")
    fault = {**os.environ, "MEADOW_FAULT": f"{point}=kill"}
    command = [FL, "lifecycle", *HEART, *folders, "stage=ingest"]
    assert subprocess.run(command, env=fault, capture_output=True, timeout=120, check=False).returncode == -9
    stage = tmp_path / "heart" / "ingest"
    assert stage.exists() == ("folder" in point)
    status, stages, _ = lifecycle(tmp_path / "heart", "stage=ingest", registry=tmp_path / "registry")
    assert status == 0 and did(stages) == ([] if stage.exists() and "folder" in point else ["ingest"])
    assert [path.name for path in (tmp_path / "heart").iterdir() if path.name != ".lock"] == ["ingest"]


# Go, or no-go


def test_a_goal_within_reach_is_a_go_that_goes_with_the_version(lifecycle, copied):
    status, stages, _ = lifecycle(copied / "heart", "business=heart_disease", registry=copied / "registry")
    assert status == 0 and stages["understand"]["found"].startswith("go: accuracy at least 0.75")
    evidence = Registry(copied / "registry").evidence("champion")["understand"]
    assert evidence["owner"] == "the four hospitals" and evidence["decision"]["action"] == "go on"
    assert evidence["left_to_acceptance"] == ["size_bytes"]
    assert evidence["trivial"]["accuracy"] < evidence["baseline"]["accuracy"]


NO_GO = ("business.success.accuracy=0.99", "business.least_progress=0.9")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (NO_GO, "accuracy at least 0.99"),
        (("business.constraints.epsilon=3",), "epsilon 3 is asked for, and the strategy adds no noise"),
        (("business.constraints.size_bytes=100",), "100 are allowed"),
    ],
)
def test_a_no_go_ends_the_pipeline_each_time(lifecycle, tmp_path, overrides, words):
    for _ in range(2):
        status, stages, _ = lifecycle(tmp_path / "heart", *overrides, registry=tmp_path / "registry")
        assert status == 1 and list(stages) == ["understand"]
        assert stages["understand"]["what"] == "stopped here" and words in stages["understand"]["found"]
    status, stages, _ = lifecycle(
        tmp_path / "heart", *overrides, "business.go_anyway=true", "stage=understand", registry=tmp_path / "registry"
    )
    assert status == 0 and "although no-go" in stages["understand"]["found"]
    assert stages["understand"]["what"] == "skipped"  # nothing is measured again for it


# The bundle at the end


def bundles(folder: Path) -> list[Path]:
    return list((folder / "package" / "bundles").iterdir())


def test_the_pipeline_ends_with_a_bundle(finished):
    (folder,) = bundles(finished / "heart")
    bundle, version = open_bundle(folder), Registry(finished / "registry").version("champion")
    known = read_json(finished / "heart" / "package" / "evidence.json")
    assert known["bundle"] == bundle.id and known["path"] == f"package/bundles/{bundle.id}"
    assert bundle.manifest["version"]["model_sha256"] == version.model_sha256
    card = (folder / "card.md").read_text()
    assert "CC BY 4.0" in card and str(finished) not in card and version.run_id not in card


def test_two_runs_and_fl_package_give_the_same_bundle(lifecycle, finished, tmp_path):
    status, _, err = lifecycle(tmp_path / "again", registry=tmp_path / "registry")
    assert status == 0, err
    (one,), (other,) = bundles(finished / "heart"), bundles(tmp_path / "again")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    where = ["--registry", str(tmp_path / "registry"), "--output", str(tmp_path / "bundles")]
    assert cli.run(["package", "champion", *where]) == 0
    assert one.name == other.name == next((tmp_path / "bundles").iterdir()).name


@pytest.mark.parametrize(
    "override, words",
    [("package.formats=[tflite]", "package.formats: got tflite"), ("package.key=no.pem", "--key: got no.pem")],
)
def test_a_bundle_that_cannot_be_is_told_before_anything_is_done(lifecycle, tmp_path, override, words):
    status, stages, err = lifecycle(tmp_path / "run", override, registry=tmp_path / "registry")
    assert status == 2 and not stages and words in err


@pytest.mark.slow
def test_a_file_that_does_not_fulfil_the_criteria_ends_the_pipeline_with_status_4(lifecycle, tmp_path):
    """The parameters fit the limit, and the 8-bit ONNX file, which holds preprocessing too, does not."""
    asked = ("business.constraints.size_bytes=12000", "package.formats=[onnx_int8]")
    status, stages, err = lifecycle(tmp_path / "run", *asked, registry=tmp_path / "registry")
    assert status == 4 and stages["accept"]["what"] == "did" and "register" not in stages
    assert "as onnx_int8, size_bytes at most 12000" in err
    status, stages, err = lifecycle(tmp_path / "run", "package.formats=[onnx_int8]", registry=tmp_path / "registry")
    assert status == 0, err
    (folder,) = bundles(tmp_path / "run")
    known = open_bundle(folder).manifest["formats"]["onnx_int8"]
    assert 0.5 < known["metrics"]["accuracy"] < 1


# The model card


def test_the_model_card_of_the_champion_is_complete(finished, tmp_path, capsys):
    """Of a version that went through every stage only what was not asked for is missing, and each says why."""
    registry = str(finished / "registry")
    capsys.readouterr()
    assert cli.run(["report", "champion", "--registry", registry, "--output", str(tmp_path / "out"), "--json"]) == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["files"]]
    assert [file.name for file in files] == ["model-card.md", "model-card.html", "report.md", "report.html"]
    rows = [
        line.split(" | ") for line in files[0].read_text().splitlines() if line.startswith("| ") and line != "| | |"
    ]
    told = {row[0].strip("| "): row[1].strip("| ") for row in rows}
    assert all(told.values()) and told["aliases"] == "champion" and told["licence"] == "CC BY 4.0"
    missing = {name: value for name, value in told.items() if value.startswith("*none: ")}
    assert missing.keys() <= {
        *("objective", "intended use", "owner", "risks"),  # nobody said
        *("differential privacy", "against the champion before", "fairness", "groups", "asked for"),  # nobody asked
        *("personal and local models", "goes out nevertheless"),
    }
    assert all(len(value) > len("*none: *") + 5 for value in missing.values())
    page, text = files[3].read_text(), files[2].read_text()
    assert page.count("<svg") >= 6 and "<script" not in page and "num_rounds=3" in page and "num_rounds=3" in text
    plots = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(plots) == page.count("<svg") and all((tmp_path / "out" / plot).is_file() for plot in plots)


# Accepted, or refused


def test_a_refusal_ends_the_pipeline_with_every_reason_and_no_champion(lifecycle, copied, finished):
    asked = ("business.success.accuracy=0.99", "business.constraints.latency_seconds=1e-9", "business.go_anyway=true")
    for _ in range(2):
        status, stages, _ = lifecycle(copied / "heart", *asked, registry=copied / "registry")
        assert status == 4 and list(stages)[-1] == "accept" and stages["accept"]["what"] == "refused"
        assert "accuracy at least 0.99: 0.7" in stages["accept"]["found"]
        assert "latency_seconds at most 1e-09" in stages["accept"]["found"]
    kept = read_json(copied / "heart" / "accept" / "evidence.json")
    assert not kept["accepted"] and len(kept["reasons"]) == 2 and kept["override"] is None
    registry = Registry(copied / "registry")
    assert registry.aliases() == {} and registry.evidence(kept["version"])["accept"]["reasons"] == kept["reasons"]
    assert cli.run(["versions", "promote", kept["version"], "--registry", str(registry.folder)]) == 4
    run_id = registry.version(kept["version"]).run_id
    assert cli.run(["versions", "promote", f"{run_id}:1", "--registry", str(registry.folder)]) == 4


def test_another_threshold_is_held_against_what_is_known_and_acceptance_makes_the_champion(lifecycle, copied):
    folder, registry = copied / "heart", Registry(copied / "registry")
    goal = "business.success.accuracy"
    assert lifecycle(folder, f"{goal}=0.78", "business.go_anyway=true", registry=registry.folder)[0] == 4
    status, stages, _ = lifecycle(folder, f"{goal}=0.74", "business.go_anyway=true", registry=registry.folder)
    assert status == 0 and did(stages) == ["accept", "package", "register"]
    # Whether it may go on is decided again, on what was measured: no stage before acceptance runs.
    assert stages["understand"]["why"] == f"only decided again: setting {goal}"
    assert stages["understand"]["found"].startswith("go: accuracy at least 0.74")
    champion = registry.version("champion")
    assert champion.name == read_json(folder / "evaluate" / "evidence.json")["version"]
    assert registry.evidence(champion)["accept"]["accepted"]
    status, stages, _ = lifecycle(folder, f"{goal}=0.74", "business.go_anyway=true", registry=registry.folder)
    assert status == 0 and did(stages) == []


def test_a_champion_of_another_run_is_compared_with_and_a_new_one_asks_again(lifecycle, copied, finished):
    shutil.copytree(finished / "registry", copied / "registry")
    registry = Registry(copied / "registry")
    old = registry.version("champion")
    lifecycle(copied / "heart", "num_rounds=2", registry=registry.folder)
    found = read_json(copied / "heart" / "evaluate" / "evidence.json")
    assert found["champion"]["version"] == old.name and 0 <= found["champion"]["worse_p"] <= 1
    run_id = registry.version(found["version"]).run_id
    registry.promote(f"{run_id}:0")  # of its own run: no other to compare with
    assert did(lifecycle(copied / "heart", "num_rounds=2", registry=registry.folder)[1]) == []


# Broken input for every stage


CSV = ("dataset=csv", "dataset.path=t.csv", "dataset.label=label")
DEALT = ("partition=dirichlet", "num_clients=500")
BROKEN: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "understand": (("business.success.r2=0.5",), "understand", ("business.success.r2: got r2",)),
    "ingest": ((*CSV, "dataset.client=site", "stage=ingest"), "ingest", ("t.csv", "column 'label'", "data row 3")),
    "understand, of data that ingest could not read": (
        (*CSV, "dataset.client=site"),
        "understand",
        ("which reads the data as stage ingest does, dataset.label", "t.csv", "column 'label'", "data row 3"),
    ),
    "understand, of a file that is not there": (
        (*CSV, "dataset.path=none.csv"),
        "understand",
        ("which reads the data as stage ingest does, dataset.path: got ", "none.csv"),
    ),
    "profile": ((*CSV, "dataset.path=sound.csv"), "profile", ("partition", "natural")),
    "validate": (("rules=rules.yaml",), "validate", ("rules.yaml: columns.age: got rnge",)),
    "wrangle": (("dataset.recipe=[{impute: {columns: [hight]}}]",), "wrangle", ("columns[0]: got hight",)),
    # Whoever deals first tells what cannot be dealt, and split deals as those before it did.
    "split": ((*CSV, "dataset.path=sound.csv", *DEALT, "stage=split"), "profile", ("num_clients: got 500",)),
    "select": (("selection.rounds=-1",), "", ("selection.rounds: got -1",)),
    "evaluate": (("evaluation.confidence=1",), "", ("evaluation.confidence: got 1",)),
    "accept": (("business.no_worse_than_champion=perhaps",), "", ("no_worse_than_champion: got perhaps",)),
    "package": (("package.formats=[zip]",), "", ("package.formats", "zip")),
    "train": (("cohort_size=9",), "train", ("cohort_size: got 9",)),
    "register": (("registry_dir=/proc/x",), "", ("registry_dir: got /proc/x",)),
}
"""Settings that break a stage; the stage that says so, none: before the first runs; and words of what is said."""


def test_every_stage_has_a_broken_input():
    assert set(NAMES) <= set(BROKEN)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_input_is_named_by_its_stage_and_leaves_nothing_half_written(capsys, tmp_path, monkeypatch, broken):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("age,site,label\n50,a,0\n60,a,1\n70,b,\n")
    Path("sound.csv").write_text("\n".join(["age,label", *(f"{age},{age % 2}" for age in range(40))]))
    Path("rules.yaml").write_text("columns: {age: {rnge: [0, 120]}}\n")
    overrides, stage, words = BROKEN[broken]
    status = cli.run(["lifecycle", "--json", *HEART, "run_dir=run", "registry_dir=registry", *overrides])
    out, err = capsys.readouterr()
    assert status == 2 and all(word in err for word in words), err
    *done, failed = json.loads(out)["stages"] if out else [{"stage": "", "what": "failed"}]
    assert (failed["stage"], failed["what"]) == (stage, "failed") and (not stage or f"stage {stage}, " in err)
    root = tmp_path / "run"
    left = [path.name for path in (root.iterdir() if root.exists() else ()) if path.name not in (".lock", "runs")]
    assert sorted(left) == sorted(one["stage"] for one in done)
    assert not list(Path("registry").glob("versions/*"))


def test_evaluate_names_a_column_that_is_not_there(lifecycle, copied, finished):
    status, stages, err = lifecycle(copied / "heart", "evaluation.sensitive=height", registry=finished / "registry")
    assert status == 2 and stages["evaluate"]["what"] == "failed"
    assert "stage evaluate, --sensitive: got height, allowed: one of age" in err


def test_register_names_a_registry_that_cannot_be_written(lifecycle, copied, finished, monkeypatch):
    shutil.rmtree(copied / "heart" / "register")
    monkeypatch.setattr("fl.faults._armed", None)
    from fl import faults

    faults.arm("registry.evidence.begin=EROFS")
    try:
        status, stages, err = lifecycle(copied / "heart", registry=finished / "registry")
    finally:
        faults.arm(None)
    assert status == 3 and stages["register"]["what"] == "failed" and "could not be written" in err
    assert not (copied / "heart" / "register").exists()


@pytest.mark.parametrize(
    "override, words",
    [
        ("stage=trian", "one of understand, ingest"),
        ("num_rounds=-1", "num_rounds: got -1"),
        ("stag=train", "did you mean stage"),
        ("business.success.acuracy=1", "one of accuracy"),
        ("business.least_progress=2", "a share, from 0 to 1"),
        ("evaluation.confidence=1", "a number above 0 and below 1"),
        ("evaluation.resamples=10", "at least 100"),
        ("business=nothing", "one of heart_disease, none"),
        ("business.success.accuracy=much", "business.success.accuracy: got much"),
        ("dataset.path=x", "dataset.path"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_done(lifecycle, tmp_path, override, words):
    status, stages, err = lifecycle(tmp_path / "run", override, registry=tmp_path / "registry")
    assert status == 2 and not stages and words in err


def test_two_at_once_are_refused(lifecycle, finished):
    from experiments.run_folder import only_writer

    with only_writer(finished / "heart"):
        status, _, err = lifecycle(finished / "heart", registry=finished / "registry")
    assert status == 2 and "no other process" in err


# Data from a database


def test_a_database_that_did_not_change_is_not_read_again(lifecycle, tmp_path):
    base = tmp_path / "patients.duckdb"
    with duckdb.connect(str(base)) as connection:
        rows = "SELECT i AS age, i % 7 AS dose, (i % 3 = 0)::INT AS sick, i % 3 AS site FROM range(90) r(i)"
        connection.execute(f"CREATE TABLE t AS {rows}")
    data = ("dataset=sql", f"dataset.path={base}", "dataset.query='SELECT * FROM t'", "dataset.client=site")
    more = ("dataset.label=sick", "stage=split")
    for again in (DATA, []):
        status, stages, err = lifecycle(tmp_path / "run", *data, *more, registry=tmp_path / "registry")
        assert status == 0 and did(stages) == again, err
    with duckdb.connect(str(base)) as connection:
        connection.execute("UPDATE t SET dose = 50 WHERE age = 1")
    status, stages, _ = lifecycle(tmp_path / "run", *data, *more, registry=tmp_path / "registry")
    assert did(stages) == DATA and stages["ingest"]["why"] == f"data {base}"


def test_a_query_over_files_is_asked_again_and_ends_there_if_it_says_the_same(lifecycle, tmp_path):
    rows = [f"{n},{n % 2},{n % 3}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["age,sick,site", *rows]) + "\n")
    query = f"dataset.query='SELECT * FROM \"{tmp_path}/t.csv\" ORDER BY age'"
    data = ("dataset=sql", query, "dataset.label=sick", "dataset.client=site", "stage=split")
    for again in (DATA, ["ingest"]):
        status, stages, err = lifecycle(tmp_path / "run", *data, registry=tmp_path / "registry")
        assert status == 0 and did(stages) == again, err


# Any list of stages


QUALITY = Quality("a requirement", "a risk", "a check")


def stage(name: str, run: Callable[[Work], Result], **more: Any) -> Stage:
    return Stage(name, **{"after": (), "reads": (), "code": (), **more}, run=run, quality=QUALITY)


def walk(root: Path, *stages: Stage, settings: dict[str, Any] | None = None) -> list[pipeline.Told]:
    return list(pipeline.walk(stages, settings or {}, root, check=lambda settings: None))


def test_a_check_that_does_not_hold_ends_the_pipeline(tmp_path):
    bad = stage("bad", lambda work: Result({}, "", {"two and two are five": False}))
    (told,) = walk(tmp_path, bad, stage("later", lambda work: Result({}, "")))
    assert isinstance(told.error, BadInput) and "two and two are five" in str(told.error)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_cannot_read_a_setting_that_it_does_not_name(tmp_path):
    reader = stage("reader", lambda work: Result({"b": work.settings["b"]}, ""), reads=("a",))
    with pytest.raises(KeyError, match="b"):
        walk(tmp_path, reader, settings={"a": 1, "b": 2})


def test_what_cannot_be_known_runs_always(tmp_path):
    unknown = stage("unknown", lambda work: Result({}, ""), sources=lambda settings: {"the weather": None})
    assert [walk(tmp_path, unknown)[0].why for _ in range(3)][1:] == ["data the weather"] * 2
