"""A foreign app's pyproject.toml and what a user overrides."""

from __future__ import annotations

import pytest

from experiments.app_spec import read_app, read_overrides
from fl.errors import BadInput

GOOD = """
[project]
name = "a"
version = "1"
[tool.flwr.app]
publisher = "b"
[tool.flwr.app.components]
serverapp = "pkg.server:app"
clientapp = "pkg.client:make.app"
[tool.flwr.app.config]
rounds = 3
[tool.flwr.app.config.client]
lr = 0.1
"""


@pytest.fixture
def written(tmp_path):
    def written(text):
        (tmp_path / "pyproject.toml").write_text(text)
        return tmp_path

    return written


def test_the_run_config_is_flat_and_overridden(written):
    app = read_app(written(GOOD), "client.lr=0.5")
    assert (app.serverapp, app.clientapp) == ("pkg.server:app", "pkg.client:make.app")
    assert app.run_config == {"rounds": 3, "client.lr": 0.5}


def test_flower_reads_the_same(written):
    from flwr.common.config import get_fused_config_from_dir, parse_config_args

    text = "rounds=5 client.lr=1e-3"
    assert read_app(written(GOOD), text).run_config == get_fused_config_from_dir(
        written(GOOD), parse_config_args([text])
    )


@pytest.mark.parametrize(
    "text, match",
    [
        (GOOD.replace("serverapp =", "other ="), "components.serverapp: got None"),
        (GOOD.replace("serverapp =", "agentapp ="), "components: got agentapp, allowed: a serverapp and a clientapp"),
        (GOOD.replace("pkg.client:make.app", "pkg.client"), "MODULE:OBJECT"),
        (GOOD.replace("rounds = 3", "rounds = [1]"), r"config.rounds: got \[1\]"),
        ("[tool", "a file in TOML"),
        ("", "components.serverapp"),
    ],
)
def test_what_is_wrong_with_a_pyproject_is_named(written, text, match):
    with pytest.raises(BadInput, match=match):
        read_app(written(text), "")


def test_a_folder_without_pyproject(tmp_path):
    with pytest.raises(BadInput, match=r"PATH: .*no pyproject\.toml"):
        read_app(tmp_path, "")


@pytest.mark.parametrize(
    "text, match",
    [("round=3", "rounds"), ("rounds", "pairs such as"), ("rounds=three", "TOML"), ("rounds=[1]", "a number")],
)
def test_what_is_wrong_with_an_override_is_named(written, text, match):
    with pytest.raises(BadInput, match=match):
        read_app(written(GOOD), text)


def test_later_overrides_win(written):
    assert read_app(written(GOOD), "client.lr=0.5 rounds=4", "rounds=5").run_config == {"rounds": 5, "client.lr": 0.5}


def test_a_file_of_overrides_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"--run-config: got .*none\.toml.*No such file"):
        read_overrides(str(tmp_path / "none.toml"))


def test_overrides_from_a_file(tmp_path):
    (tmp_path / "o.toml").write_text('[client]\nlr = 0.25\nname = "a b"\n')
    assert read_overrides(str(tmp_path / "o.toml")) == {"client.lr": 0.25, "client.name": "a b"}
