"""What a new project consists of: path -> text, where PROJECT stands for its name."""

from __future__ import annotations

_README = """# PROJECT

A federated learning project on [Meadow](https://pypi.org/project/meadow-fl/), from data to a registered version.

| folder | what belongs there |
|---|---|
| `data/raw/` | data as they came, never changed; `example.csv` is one to begin with |
| `data/interim/` | what lies between |
| `data/processed/` | what the pipeline makes |
| `pipelines/` | how data become a version: `pipelines/lifecycle.sh` |
| `notebooks/` | looking and trying |
| `docs/` | what it is for, and what was decided |
| `models/` | the registry of versions |
| `tests/` | what must hold of data and pipeline: `pytest` |

```bash
pipelines/lifecycle.sh                  # every stage that has to run; settings may follow: num_rounds=50
fl versions list --registry models
pytest
```
"""

_LIFECYCLE = """#!/usr/bin/env bash
# Data to a registered version. What is given here goes last: pipelines/lifecycle.sh num_rounds=5 stage=split
set -euo pipefail
cd "$(dirname "$0")/.."
exec fl lifecycle \\
  dataset=csv dataset.path=data/raw/example.csv dataset.label=label dataset.client=site \\
  "business.objective='tell the label from three measurements'" business.success.accuracy=0.8 \\
  num_rounds=30 run_dir=data/processed/lifecycle registry_dir=models "$@"
"""

_TEST_DATA = '''"""What must hold of the data before anything is trained on them."""

import csv
from pathlib import Path

RAW = Path(__file__).parent.parent / "data" / "raw" / "example.csv"
COLUMNS = ["site", "first", "second", "third", "label"]


def rows():
    with RAW.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_row_has_every_value():
    found = rows()
    assert found and list(found[0]) == COLUMNS
    assert all(value for row in found for value in row.values())


def test_labels_are_two_classes_at_every_site():
    labels = {}
    for row in rows():
        labels.setdefault(row["site"], set()).add(row["label"])
    assert all(found == {"0", "1"} for found in labels.values())
'''

_TEST_PIPELINE = '''"""The pipeline goes through, and has nothing to do the second time."""

import json
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def lifecycle(folder):
    command = [PROJECT / "pipelines" / "lifecycle.sh", f"run_dir={folder / 'run'}", f"registry_dir={folder / 'models'}"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["stages"]


def test_data_become_a_version_once(tmp_path):
    first = lifecycle(tmp_path)
    assert first[-1]["stage"] == "register" and all(stage["what"] == "did" for stage in first)
    assert all(stage["what"] == "skipped" for stage in lifecycle(tmp_path))
'''

_GOAL = """# What PROJECT is for

- **Objective:**
- **Success:** which metric must reach what (`business.success.METRIC=` in `pipelines/lifecycle.sh`)
- **Constraints:** latency, size, privacy, the client that is served worst (`business.constraints.`)
- **Owner:**
- **Intended use, and what it must not be used for:**
- **Risks:**
"""


def _issue(name: str, about: str, questions: str) -> str:
    return f"---\nname: {name}\nabout: {about}\n---\n\n{questions}\n"


FILES: dict[str, str] = {
    "README.md": _README,
    ".gitignore": "__pycache__/\n.pytest_cache/\ndata/interim/*\ndata/processed/*\n!.gitkeep\nmodels/\noutputs/\n",
    "data/interim/.gitkeep": "",
    "data/processed/.gitkeep": "",
    "docs/goal.md": _GOAL,
    "notebooks/README.md": "Notebooks that look and try. What is kept moves to `pipelines/`, with a test.\n",
    "pipelines/lifecycle.sh": _LIFECYCLE,
    "tests/test_data.py": _TEST_DATA,
    "tests/test_pipeline.py": _TEST_PIPELINE,
    ".github/ISSUE_TEMPLATE/bug.md": _issue(
        "Bug", "Something does not do what it should", "Command, what happened, what should have happened:"
    ),
    ".github/ISSUE_TEMPLATE/data.md": _issue(
        "Data", "Data are missing, wrong or new", "Source, licence, owner, which columns and rows, how it was noticed:"
    ),
    ".github/ISSUE_TEMPLATE/model.md": _issue(
        "Model", "A version is not good enough", "Version, metric, for whom, since when; what it should be:"
    ),
}
EXECUTABLE = ("pipelines/lifecycle.sh",)
