"""The README is true: its commands run, its tree is the tree on disk, and what it names exists.

A fenced block may have a comment on the line above it that says what it is:

    (none)              a `bash` block, run here as it stands
    slow                a `bash` block, run by `make test-all`
    deploy              the SuperLink block, run by `make test-all`, with its folder and ports replaced
    not run: REASON     a `bash` block whose `make` targets are looked up instead
    file: NAME          what the blocks around it expect to find under this name
    tree                the house

Blocks are run by bash, as a reader would. What stands in for the programs they call is made here, and does two things
only: `fl simulate` gains FASTER, and a TensorBoard that would serve until it is stopped reads its event files and ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from experiments.choices import GROUPS, choices
from experiments.cli import command
from experiments.compose import compose

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
FASTER = "num_rounds=1"
SECONDS = 280
MOST_BYTES_OF_A_PICTURE = 300_000


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    kind: str  # slow, deploy, not run, file, tree, or "" for none
    value: str  # of the comment, after its colon


def blocks() -> list[Block]:
    found = []
    fence = re.compile(
        r"^(?:<!-- (?P<kind>[a-z ]+)(?:: (?P<value>[^\n]+))? -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
        re.M | re.S,
    )
    for match in fence.finditer(README):
        line = README.count("\n", 0, match.start("text")) + 1
        found.append(Block(line, match["language"], match["text"], match["kind"] or "", match["value"] or ""))
    return found


BLOCKS = blocks()
FILES = [block for block in BLOCKS if block.kind == "file"]
SCRIPTS = [block for block in BLOCKS if block.language == "bash"]
MARKS: dict[str, list[pytest.MarkDecorator]] = {
    "": [],
    "slow": [pytest.mark.slow, pytest.mark.ray],
    "deploy": [pytest.mark.slow, pytest.mark.deploy],
}


def test_every_block_is_of_a_kind_that_something_here_looks_at():
    assert {block.kind for block in SCRIPTS} <= {*MARKS, "not run"}
    assert {block.kind for block in BLOCKS if block.language != "bash"} <= {"file", "tree"}
    assert len(BLOCKS) == README.count("\n```") / 2
    assert sum(block.kind == "" for block in SCRIPTS) > sum(block.kind != "" for block in SCRIPTS)


# The commands

# `fl`, without the seconds that importing takes each time: a process that has imported everything forks for each call,
# in the caller's folder and environment and on its streams. The child goes on as the console script would.
SERVER = """
import json, os, signal, socket, sys
from experiments import cli
os.environ.update(cli.ENVIRONMENT)
import matplotlib.pyplot, onnx, onnxruntime, onnxscript, tensorboard.summary, torch.export, torch.onnx
import clients.inprocess, experiments.export, experiments.run, experiments.simulate, fl.data.prepare, server.app
import server.tracking.tensorboard, server.tracking.terminal
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    caller, _ = listener.accept()
    if os.fork():  # a process a command, since some go on in the background, and one that waits for it
        caller.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(caller, 2**20, 2)
    if (child := os.fork()) == 0:
        words, folder, variables = json.loads(request)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        for stream, number in zip(streams, (1, 2)):
            os.dup2(stream, number)
        sys.argv = ["fl", *words]
        sys.path[:0] = [os.path.abspath(p) for p in variables.get("PYTHONPATH", "").split(os.pathsep) if p]
        status = 70
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for stream in streams:
        os.close(stream)
    caller.sendall(bytes([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255]))
    os._exit(0)
"""

CALLER = """
import json, os, socket, sys
words = sys.argv[2:]
if words[0] == "simulate" and not any(word.startswith("--cfg") for word in words):
    words += sys.argv[1].split()
server = socket.socket(socket.AF_UNIX)
server.connect(os.environ["FL_SOCKET"])
socket.send_fds(server, [json.dumps([words, os.getcwd(), dict(os.environ)]).encode()], [1, 2])
sys.exit(server.recv(1)[0])
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone's in which something was trained, with the files that the README shows."""
    folder = tmp_path_factory.mktemp("readme")
    for block in FILES:
        path = folder / block.value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    scope: dict[str, Any] = {}
    exec((folder / "my_data.py").read_text(), scope)
    data = scope["load"]()
    np.savez(folder / "my.npz", **data)
    rows = zip(data["x"].tolist(), data["y"].tolist(), data["client"].tolist(), strict=True)
    lines = [",".join(map(str, [*x, y, f"site {client}"])) for x, y, client in rows]
    (folder / "my.csv").write_text("\n".join(["a,b,c,d,e,f,g,h,label,site", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def bash(workplace: Path) -> Iterator[Callable[..., None]]:
    """Runs a script, in the workplace unless told otherwise; fails where a command in it fails."""
    programs = workplace / "bin"
    programs.mkdir()
    (workplace / "caller.py").write_text(CALLER)
    caller = f'exec "{sys.executable}" -S -E "{workplace}/caller.py" "{FASTER}" "$@"'
    reader = f'exec "{BIN}/tensorboard" --inspect "$@"'
    for name, line in (("fl", caller), ("tensorboard", reader)):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    # The name of a Unix socket must be shorter than many a temporary folder's.
    home = tempfile.mkdtemp(prefix="fl-", dir="/tmp")
    place = f"{home}/s"
    variables = {
        **os.environ,
        "FL_SOCKET": place,
        "FLWR_HOME": str(workplace / "flwr"),
        "PATH": os.pathsep.join([str(programs), str(BIN), os.environ["PATH"]]),
    }

    def run(script: str, folder: Path = workplace) -> None:
        # To files: what a script leaves in the background would keep a pipe open.
        out, err = workplace / "out.log", workplace / "err.log"
        with out.open("w") as stdout, err.open("w") as stderr:
            started = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=folder,
                env=variables,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                status = started.wait(timeout=SECONDS)
            finally:
                stop_group(started.pid)
        assert status == 0, f"{script}\n{out.read_text()[-3000:]}\n{err.read_text()[-6000:]}"

    with (workplace / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, place], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        ends = time.monotonic() + 120
        while not Path(place).exists():
            assert server.poll() is None and time.monotonic() < ends, (workplace / "server.log").read_text()
            time.sleep(0.05)
        run("fl simulate dataset=synthetic")
        yield run
    finally:
        stop_group(server.pid)
        server.wait()
        shutil.rmtree(home, ignore_errors=True)


def stop_group(number: int) -> None:
    """End what a script left in the background."""
    for each in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(number, each)
        except ProcessLookupError:
            return
        time.sleep(0.2)


def param(block: Block) -> Any:
    return pytest.param(block, marks=MARKS[block.kind], id=f"line {block.line}")


@pytest.mark.parametrize("block", [param(b) for b in SCRIPTS if b.kind in ("", "slow")])
def test_commands_run(block: Block, bash: Callable[..., None]):
    bash(block.text)


def test_a_command_that_fails_is_noticed(bash: Callable[..., None]):
    for script in ("fl simulate dataset=nothing", "run=$(fl versions show nothing | tail -n 1)\nfl versions verify"):
        with pytest.raises(AssertionError, match="got nothing"):
            bash(script)


@pytest.mark.parametrize("block", [param(b) for b in SCRIPTS if b.kind == "deploy"])
def test_the_apps_run_on_a_superlink(block: Block, bash: Callable[..., None], workplace: Path):
    app = workplace / "app"
    for package in ("fl", "clients", "server", "conf", "experiments"):
        shutil.copytree(ROOT / package, app / package, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    for name in ("pyproject.toml", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, app / name)
    node = str(free_port())
    instead = {"/tmp/meadow": str(workplace / "lab"), "9093": str(free_port()), "910$node": f"$(({node} + $node))"}

    def here(text: str) -> str:
        for before, after in instead.items():
            text = text.replace(before, after)
        return text

    (workplace / "flwr" / "config.toml").write_text(here((workplace / "flwr" / "config.toml").read_text()))
    (app / "overrides.toml").write_text(here((workplace / "overrides.toml").read_text()))
    bash(here(block.text), app)
    summary = json.loads((workplace / "lab" / "deployed" / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["rounds_completed"] == 2 and summary["engine"] == "superlink"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert named >= {"simulate", "test", "check", "test-all"} and named <= targets
    bare = {name: value for name, value in os.environ.items() if name != "ARGS" and not name.startswith("MAKE")}
    would = subprocess.run(
        ["make", "-n", "simulate"], cwd=ROOT, env=bare, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert would.splitlines()[-1].strip() == ".venv/bin/fl simulate"


# The tree


def shown_tree(text: str) -> dict[str, set[str]]:
    """Folder -> its entries, for each folder that is shown with any; folders end in a slash. "" is the root."""
    tree: dict[str, set[str]] = {}
    above: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above = [*above[:depth], name]
        tree.setdefault("".join(above[:-1]), set()).add(name)
    return tree


def tracked_tree() -> dict[str, set[str]]:
    """The same for what git tracks, without what says nothing: dotfiles, __init__.py, py.typed, files of the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    tree: dict[str, set[str]] = {}
    for path in (Path(name) for name in listed.stdout.split("\0") if name):
        if any(part.startswith(".") for part in path.parts) or not (ROOT / path).exists():
            continue
        for number, part in enumerate(path.parts):
            is_file = number == len(path.parts) - 1
            if part not in ("__init__.py", "py.typed") and not (is_file and number == 0):
                folder = "".join(f"{p}/" for p in path.parts[:number])
                tree.setdefault(folder, set()).add(part if is_file else f"{part}/")
    return tree


def test_the_tree_is_the_tree_on_disk():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing tells what belongs to the project")
    (block,) = (block for block in BLOCKS if block.kind == "tree")
    shown, tracked = shown_tree(block.text), tracked_tree()
    assert {"", "fl/", "clients/", "server/", "conf/"} <= shown.keys()
    differences = {
        folder: {"not in the README": tracked.get(folder, set()) - entries, "not on disk": entries - tracked[folder]}
        for folder, entries in shown.items()
        if entries != tracked.get(folder)
    }
    assert not differences


def test_a_tree_is_read_by_its_indentation():
    assert shown_tree("a/   what\n  b/\n    c.py  this\n  d.py\ne/\n") == {
        "": {"a/", "e/"},
        "a/": {"b/", "d.py"},
        "a/b/": {"c.py"},
    }


# What is named


def inline() -> list[str]:
    """Every piece of inline code."""
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", outside)


def test_the_table_of_groups_has_every_group_and_choice():
    rows = dict(re.findall(r"^\| `(\w+)` \| (`.+) \|$", README, re.M))
    assert {group: set(re.findall(r"`(\w+)`", rows.get(group, ""))) - {"algorithm"} for group in GROUPS} == {
        group: set(choices(group)) for group in GROUPS
    }


def test_every_choice_that_is_named_exists():
    named = re.findall(rf"\b({'|'.join(GROUPS)})=([a-z_,]+)\b", "\n".join(inline()))
    assert len(named) > 10
    assert [f"{group}={name}" for group, name in named if name not in choices(group)] == []


def test_every_setting_that_is_named_exists():
    known: set[str] = set()

    def walk(values: dict[str, Any], prefix: str = "") -> None:
        for key, value in values.items():
            known.add(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    for group in ("dataset", "partition"):
        for name in choices(group):
            walk(compose([f"{group}={name}"]))
    named = {
        text.partition("=")[0]
        for part in inline()
        for text in part.split()
        if re.match(r"(dataset|partition|client|server|engine)\.[a-z_.]+(=|$)", text)
    }
    assert len(named) > 15
    assert sorted(named - known) == []


def test_every_command_is_documented():
    group = command()
    assert isinstance(group, click.Group)
    names = []
    for name, each in group.commands.items():
        names += [f"fl {name} {below}" for below in each.commands] if isinstance(each, click.Group) else [f"fl {name}"]
    assert len(names) > 8
    assert [name for name in names if not re.search(rf"\b{name}\b", README)] == []


def test_links_and_pictures_exist():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not link.startswith("https://")]
    assert [link for link in links if not (ROOT / link).exists()] == []
    pictures = {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()}
    assert pictures == {link for link in links if link.startswith("docs/")}
    assert [p for p in pictures if (ROOT / p).stat().st_size > MOST_BYTES_OF_A_PICTURE] == []
    assert all((ROOT / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_the_first_screen_goes_from_clone_to_export():
    first = README[: README.index("\n## ", README.index("\n## ") + 1)]
    places = [first.index(words) for words in ("git clone", "make simulate", "fl export champion", "docs/terminal.png")]
    assert places == sorted(places)
    assert README.count("\n", 0, places[-1]) < 40
