"""dvc.yaml: the stages of `fl lifecycle`, and that DVC and the pipeline agree on what has to run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.lifecycle.stages import STAGES

BIN = Path(sys.executable).parent


def test_dvc_knows_the_stages_as_they_are(repository):
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    assert list(stages) == [stage.name for stage in STAGES]
    for stage in STAGES:
        told = stages[stage.name]
        assert told["cmd"] == f"fl lifecycle stage={stage.name} run_dir=${{folder}} ${{settings}}"
        code = {name.replace(".", "/") for name in stage.code}
        assert set(told["deps"]) == {
            f"{path}.py" if (repository / f"{path}.py").is_file() else path for path in code
        } | {f"${{folder}}/{other}" for other in stage.after}
        outs = [name for out in told["outs"] for name in out]
        assert outs[0] == f"${{folder}}/{stage.name}"
        assert all((repository / path).exists() for path in told["deps"] if not path.startswith("$"))


@pytest.mark.slow
def test_dvc_runs_what_the_pipeline_would(repository, tmp_path):
    pytest.importorskip("dvc")
    for name in ("fl", "experiments", "clients", "server", "conf"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / ".dvcignore", tmp_path)
    text = (repository / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(text.replace("num_rounds=20", "num_rounds=2 engine=inprocess"))
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}

    def call(*words: str) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("dvc", "init", "--no-scm", "-q")
    assert all(f"Running stage '{stage.name}'" in call_out for call_out in [call("dvc", "repro")] for stage in STAGES)
    folder = "run_dir=outputs/lifecycle/dvc"
    settings = ("dataset=heart_disease", "num_rounds=2", "engine=inprocess")
    assert call("fl", "lifecycle", folder, *settings).count("skipped") == len(STAGES)
    assert call("dvc", "repro").count("didn't change, skipping") == len(STAGES)
    goals = tmp_path / "fl" / "evaluation" / "goals.py"
    goals.write_text(goals.read_text() + "# another\n")
    again = call("dvc", "repro")
    assert "Running stage 'understand'" in again and "Stage 'train' didn't change, skipping" in again
    rules = tmp_path / "outputs" / "lifecycle" / "dvc" / "validate" / "rules.yaml"
    rules.write_text(rules.read_text().replace("leak: 0.99", "leak: 0.98"))
    again = call("dvc", "repro")
    ran = [stage.name for stage in STAGES if f"Running stage '{stage.name}'" in again]
    assert ran == ["validate", "package", "register"] and "leak: 0.98" in rules.read_text()
    assert call("fl", "lifecycle", folder, *settings).count("skipped") == len(STAGES)
