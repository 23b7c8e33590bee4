"""The house of DESIGN.md, held by name: who may import whom, where the heavy libraries live, what modules are called.

A new part names its floor in FLOORS. Every check is a function from the parsed sources to a list of complaints, and is
shown to complain about a planted tree below, so that a check that cannot fail does not pass for one that holds.
"""

from __future__ import annotations

import ast
import io
import itertools
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fl", "clients", "server", "conf", "experiments")

# Part -> (floor, step within it). A module imports from its own part and from what stands lower; parts that stand
# equally high are siblings. The longest prefix wins; "fl" itself is only the empty root package.
FLOORS: dict[str, tuple[int, int]] = {
    "fl": (0, 0),
    "fl.errors": (0, 1),
    "fl.faults": (0, 2),
    "fl.parameters": (0, 2),
    "fl.drawing": (0, 1),
    "fl.plain": (0, 1),
    "fl.garbage": (0, 2),
    "fl.interrupts": (0, 2),
    "fl.seeds": (0, 2),
    "fl.decisions": (0, 2),
    "fl.releases": (0, 3),  # above decisions; what policies, routers and the registry say to each other
    "fl.run_config": (0, 2),
    "fl.child_process": (0, 2),
    "fl.files": (0, 3),  # files that are whole or absent; above faults, which it can be made to have
    "fl.arrays_file": (0, 4),
    "fl.keys": (0, 2),
    "fl.untrusted": (0, 2),
    "fl.signature": (0, 2),  # what goes into a model and comes out
    "fl.moments": (0, 3),  # above parameters for its Array
    "fl.sketches": (0, 3),
    "fl.transforms": (0, 3),
    "fl.metrics": (0, 4),  # above what of it fills a file of its own
    "fl.messages": (0, 5),
    "fl.wire": (0, 6),
    "fl.data": (1, 0),
    "fl.models": (1, 0),
    "fl.cohorts": (1, 0),
    "fl.aggregators": (1, 0),
    "fl.privacy": (1, 0),
    "fl.algorithms": (2, 0),
    "fl.registry": (3, 0),
    "fl.bundle": (3, 0),
    "fl.onnx_session": (3, 0),
    "fl.inference_log": (3, 0),
    "fl.foreign": (4, 0),  # what runs in the processes of a foreign app; imports nothing of ours by name
    "fl.evaluation": (4, 0),
    "fl.mlflow_mirror": (4, 0),
    "fl.packaging": (4, 0),
    "fl.serving": (4, 0),
    "fl.deployment": (4, 0),
    "fl.monitoring": (4, 0),
    "clients": (5, 0),
    "server": (5, 0),
    "conf": (6, 0),
    "experiments": (6, 1),
}

# A heavy library -> its homes. The longest prefix wins here too, so that a home may be a single module.
HOMES: dict[str, tuple[str, ...]] = {
    "ray": ("clients", "fl.serving.ray_serve", "experiments.bench.drivers"),
    "flwr": ("fl.wire", "fl.foreign", "clients", "server", "experiments.bench.drivers"),
    "hydra": ("experiments", "conf"),
    "omegaconf": ("experiments", "conf"),
    "tensorboard": ("server.tracking",),
    "torch.utils.tensorboard": ("server.tracking",),
    "fastapi": ("fl.serving", "experiments.bench.drivers"),
    "starlette": ("fl.serving",),
    "uvicorn": ("fl.serving", "experiments.bench.drivers"),
    "cryptography": ("fl.keys",),
    "mlflow": ("fl.mlflow_mirror",),
    "onnx": ("fl.packaging",),
    "onnxscript": ("fl.packaging",),
    "torch.onnx": ("fl.packaging",),
    "onnxruntime": ("fl.onnx_session", "fl.packaging", "fl.serving", "experiments.bench.drivers"),
    "executorch": ("fl.packaging",),
    "kombu": ("fl.serving.on_demand",),
    "redis": ("fl.serving.on_demand",),
    "river": ("fl.serving.online",),
}

# What `fl --help` must not wait for: nothing that experiments.cli imports while it is imported may import these.
SLOW_TO_IMPORT = (
    *("torch", "ray", "flwr", "hydra", "omegaconf", "tensorboard", "matplotlib", "pandas", "duckdb", "sklearn"),
    *("fastapi", "onnx", "onnxruntime", "torchmetrics", "scipy", "mlflow", "kombu", "river", "sqlalchemy"),
)

# Where private examples are read; the server must not reach it, by whatever way round.
PRIVATE = "fl.data.store"

EMPTY_NAMES = {
    *("utils", "util", "helpers", "helper", "common", "core", "base"),
    *("manager", "managers", "handler", "handlers", "misc"),
}
MOST_LINES = 400
# Module -> why it may be longer.
LONG_FOR_A_REASON: dict[str, str] = {}
# Module -> why it may edit sys.path: only a foreign app's own folder, in a process of its own.
EDITS_SYS_PATH: dict[str, str] = {
    "fl.foreign.process": "a foreign app's own folder, in a process of its own",
}

# What makes a generator of its own; every other function of these modules is, or is drawn from, the process-wide one.
OWN_GENERATORS = {
    "numpy.random": {
        "default_rng",
        "Generator",
        "BitGenerator",
        "SeedSequence",
        "Philox",
        "PCG64",
        "PCG64DXSM",
        "SFC64",
    },
    "random": {"Random", "SystemRandom"},
}
TORCH_SEEDERS = {
    *("torch.manual_seed", "torch.random.manual_seed", "torch.seed", "torch.set_rng_state"),
    *("torch.random.set_rng_state", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.random.fork_rng"),
}


@dataclass(frozen=True)
class Import:
    line: int
    target: str  # the module of this project where it is one, else the dotted name as written
    at_import_time: bool  # neither inside a function nor under TYPE_CHECKING


@dataclass(frozen=True)
class Module:
    name: str
    path: str  # below the root, for messages
    text: str
    tree: ast.Module
    is_package: bool
    imports: tuple[Import, ...]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name -> dotted name, over the whole file."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def dotted(self, node: ast.expr) -> str:
        """The full dotted name that an expression spells, "" if it spells none that was imported."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, "")
        if isinstance(node, ast.Attribute):
            before = self.dotted(node.value)
            return f"{before}.{node.attr}" if before else ""
        return ""


Tree = dict[str, Module]


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def longest(name: str, prefixes: Iterator[str] | dict[str, tuple[int, int]]) -> str | None:
    return max((p for p in prefixes if within(name, p)), key=len, default=None)


def part_of(name: str) -> str | None:
    """The part of FLOORS that a module belongs to; the root package "fl" has no modules of its own."""
    part = longest(name, FLOORS)
    return None if part == "fl" and name != "fl" else part


def read_tree(root: Path) -> Tree:
    """Every source module below ``root``, parsed once, its imports resolved to modules of the tree where they are."""
    files = {}
    for path in sorted(itertools.chain.from_iterable((root / p).rglob("*.py") for p in PACKAGES)):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    tree = {}
    for name, path in files.items():
        text = path.read_text(encoding="utf-8")
        parsed = ast.parse(text, filename=str(path))
        is_package = path.name == "__init__.py"
        imports = tuple(imports_of(parsed, name if is_package else name.rpartition(".")[0], set(files)))
        tree[name] = Module(name, str(path.relative_to(root)), text, parsed, is_package, imports)
    return tree


def imports_of(parsed: ast.Module, package: str, known: set[str]) -> Iterator[Import]:
    def visit(node: ast.AST, *, at_import_time: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, at_import_time)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                # A name inside a module of ours counts as that module; of a foreign one it may be a module itself.
                target = source if source in known and inner not in known else inner
                yield Import(node.lineno, target, at_import_time)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield Import(node.lineno, node.args[0].value, at_import_time)
        for child in ast.iter_child_nodes(node):
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
            )
            yield from visit(child, at_import_time=at_import_time and not inside)

    yield from visit(parsed, at_import_time=True)


def edges(module: Module, tree: Tree) -> Iterator[Import]:
    """Imports of modules of this project."""
    for found in module.imports:
        target = longest(found.target, iter(tree))
        if target is not None and target != module.name:
            yield Import(found.line, target, found.at_import_time)


# The checks


def every_module_has_a_floor(tree: Tree) -> list[str]:
    return [
        f"{m.path}:1 {m.name} stands on no floor: name its part in FLOORS of {Path(__file__).name} and in the README"
        for m in tree.values()
        if part_of(m.name) is None
    ]


def imports_point_down(tree: Tree) -> list[str]:
    complaints = []
    for module in tree.values():
        part = part_of(module.name)
        for found in module.imports:
            if part is None or found.target.partition(".")[0] not in PACKAGES:
                continue
            other = part_of(found.target)
            where = f"{module.path}:{found.line} {module.name} imports {found.target}"
            if other is None:
                complaints.append(f"{where}, which stands on no floor of FLOORS")
            elif other == part:
                continue
            elif FLOORS[other] == FLOORS[part]:
                complaints.append(
                    f"{where}, but {part} and {other} are siblings: they meet only below, or by a function handed over"
                )
            elif FLOORS[other] > FLOORS[part]:
                complaints.append(
                    f"{where}, but {part} (floor {FLOORS[part][0]}) stands below {other} (floor {FLOORS[other][0]})"
                )
            elif other == "conf" and part != "experiments":
                complaints.append(f"{where}, but only experiments may read the config")
    return complaints


def server_never_reaches_private_data(tree: Tree) -> list[str]:
    complaints = []
    for start in (m for m in tree.values() if within(m.name, "server")):
        seen = {start.name: ""}
        waiting = [start.name]
        while waiting:
            name = waiting.pop()
            if within(name, PRIVATE):
                complaints.append(f"{start.path} reaches {PRIVATE}, where private examples are read:{seen[name]}")
                break
            # To import a.b.c also runs a/__init__.py and a/b/__init__.py.
            steps = [(e.line, e.target) for e in edges(tree[name], tree)]
            steps += [(line, up) for line, t in steps for up in ancestors(t) if up in tree]
            for line, target in steps:
                if target not in seen:
                    seen[target] = f"{seen[name]}\n    {tree[name].path}:{line} imports {target}"
                    waiting.append(target)
    return complaints


def ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def heavy_libraries_stay_home(tree: Tree) -> list[str]:
    complaints = []
    ray_adapters = set()
    for module in tree.values():
        for found in module.imports:
            library = longest(found.target, iter(HOMES))
            if library is None:
                continue
            if not any(within(module.name, home) for home in HOMES[library]):
                homes = " and ".join(HOMES[library])
                complaints.append(f"{module.path}:{found.line} {module.name} imports {library}, whose home is {homes}")
            if library == "ray" and within(module.name, "fl.serving"):
                ray_adapters.add(module.path)
    if len(ray_adapters) > 1:
        complaints.append(f"{' and '.join(sorted(ray_adapters))} import ray: one adapter of fl/serving/ may")
    return complaints


def the_command_line_starts_light(tree: Tree) -> list[str]:
    complaints = []
    seen = {"experiments.cli"} & set(tree)
    waiting = sorted(seen)
    while waiting:
        module = tree[waiting.pop()]
        complaints += [
            f"{module.path}:{found.line} {module.name} imports {found.target} while `fl --help` waits for it: "
            "import it inside the function that uses it"
            for found in module.imports
            if found.at_import_time and any(within(found.target, slow) for slow in SLOW_TO_IMPORT)
        ]
        for target in (e.target for e in edges(module, tree) if e.at_import_time):
            for name in [*ancestors(target), target]:
                if name in tree and name not in seen:
                    seen.add(name)
                    waiting.append(name)
    return complaints


def no_import_cycles(tree: Tree) -> list[str]:
    """One complaint a cycle that a depth-first walk closes; imports in functions and under TYPE_CHECKING count."""
    complaints = []
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        for edge in edges(tree[name], tree):
            if edge.target in trail:
                loop = [*trail[trail.index(edge.target) :], edge.target]
                complaints.append(f"{tree[name].path}:{edge.line} closes a cycle of imports: {' -> '.join(loop)}")
            elif edge.target not in done:
                walk(edge.target, [*trail, edge.target])
        done.add(name)

    for name in tree:
        if name not in done:
            walk(name, [name])
    return complaints


def modules_are_named_for_a_thing(tree: Tree) -> list[str]:
    return [
        f"{m.path}:1 {word!r} names no thing: call the module what it holds"
        for m in tree.values()
        for word in m.name.rpartition(".")[2].split("_")
        if word in EMPTY_NAMES
    ]


def every_module_has_a_docstring(tree: Tree) -> list[str]:
    return [
        f"{m.path}:1 has no docstring that says what it is for" for m in tree.values() if not ast.get_docstring(m.tree)
    ]


def no_module_is_long(tree: Tree) -> list[str]:
    return [
        f"{m.path}:{MOST_LINES + 1} has {n} lines, more than {MOST_LINES}: which second thing does it do?"
        for m in tree.values()
        if (n := len(m.text.splitlines())) > MOST_LINES and m.name not in LONG_FOR_A_REASON
    ]


def nobody_edits_sys_path(tree: Tree) -> list[str]:
    complaints = []
    for module in (m for m in tree.values() if m.name not in EDITS_SYS_PATH):
        for node in ast.walk(module.tree):
            edited: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                edited = [t.value if isinstance(t, ast.Subscript) else t for t in node.targets]
            elif isinstance(node, ast.AugAssign):
                edited = [node.target]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                edited = [node.func.value, node.func]
            if any(module.dotted(e) in {"sys.path", "site.addsitedir"} for e in edited):
                complaints.append(f"{module.path}:{node.lineno} edits sys.path: the project is installed")
    return complaints


def only_seeds_touches_process_wide_generators(tree: Tree) -> list[str]:
    complaints = []
    for module in (m for m in tree.values() if m.name != "fl.seeds"):
        for node in (n for n in ast.walk(module.tree) if isinstance(n, ast.Call)):
            called = module.dotted(node.func)
            owner, _, function = called.rpartition(".")
            if called in TORCH_SEEDERS or (owner in OWN_GENERATORS and function not in OWN_GENERATORS[owner]):
                complaints.append(
                    f"{module.path}:{node.lineno} calls {called}, which touches the process-wide generator: "
                    "only fl/seeds.py does, take a generator from there"
                )
    return complaints


def ignores_name_their_error(tree: Tree) -> list[str]:
    return [
        f"{m.path}:{token.start[0]} `# type: ignore` names no error code"
        for m in tree.values()
        for token in tokenize.generate_tokens(io.StringIO(m.text).readline)
        if token.type == tokenize.COMMENT and re.search(r"#\s*type:\s*ignore(?!\[)", token.string)
    ]


CHECKS: tuple[Callable[[Tree], list[str]], ...] = (
    every_module_has_a_floor,
    imports_point_down,
    server_never_reaches_private_data,
    heavy_libraries_stay_home,
    the_command_line_starts_light,
    no_import_cycles,
    modules_are_named_for_a_thing,
    every_module_has_a_docstring,
    no_module_is_long,
    nobody_edits_sys_path,
    only_seeds_touches_process_wide_generators,
    ignores_name_their_error,
)


# The house itself


@pytest.fixture(scope="module")
def sources() -> Tree:
    return read_tree(ROOT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_stands(sources: Tree, check: Callable[[Tree], list[str]]):
    complaints = check(sources)
    assert not complaints, "\n" + "\n".join(complaints)


def test_exceptions_are_of_modules_that_exist(sources: Tree):
    assert {*LONG_FOR_A_REASON, *EDITS_SYS_PATH} <= set(sources)


# The checks see what they look for

DOC = '"""A module."""\n'
PLANTED: list[tuple[Callable[[Tree], list[str]], dict[str, str], str]] = [
    (every_module_has_a_floor, {"fl/compression.py": DOC}, "fl/compression.py:1 fl.compression stands on no floor"),
    (
        imports_point_down,
        {"fl/data/split.py": DOC + "import fl.algorithms.fedavg\n", "fl/algorithms/fedavg.py": DOC},
        "fl/data/split.py:2 fl.data.split imports fl.algorithms.fedavg, but fl.data (floor 1) stands below",
    ),
    (
        imports_point_down,
        {"fl/errors.py": DOC + "def f():\n    from fl.parameters import add\n", "fl/parameters.py": DOC},
        "fl/errors.py:3 fl.errors imports fl.parameters, but fl.errors (floor 0) stands below",
    ),
    (
        imports_point_down,
        {
            "clients/grid.py": DOC
            + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from server import rounds\n"
        },
        "clients/grid.py:4 clients.grid imports server.rounds, but clients and server are siblings",
    ),
    (
        imports_point_down,
        {"server/rounds.py": DOC + "import importlib\nimportlib.import_module('clients.actor')\n"},
        "server/rounds.py:3 server.rounds imports clients.actor, but server and clients are siblings",
    ),
    (
        imports_point_down,
        {"fl/serving/router.py": DOC + "from ..evaluation import slices\n", "fl/evaluation/slices.py": DOC},
        "fl/serving/router.py:2 fl.serving.router imports fl.evaluation.slices, but fl.serving and fl.evaluation are",
    ),
    (
        imports_point_down,
        {"fl/models/cnn.py": DOC + "from fl.data import store\n"},
        "fl.models and fl.data are siblings",
    ),
    (imports_point_down, {"fl/seeds.py": DOC + "import fl.nowhere\n"}, "fl.nowhere, which stands on no floor"),
    (
        imports_point_down,
        {"conf/schema.py": DOC + "import experiments.cli\n"},
        "conf (floor 6) stands below experiments",
    ),
    (
        server_never_reaches_private_data,
        {
            "server/app.py": DOC + "from fl.data import catalog\n",
            "fl/data/__init__.py": DOC,
            "fl/data/catalog.py": DOC + "def read():\n    from fl.data import store\n",
            "fl/data/store.py": DOC,
        },
        "fl/data/catalog.py:3 imports fl.data.store",
    ),
    (
        server_never_reaches_private_data,
        {
            "server/app.py": DOC + "import fl.data.catalog\n",
            "fl/data/__init__.py": DOC + "from fl.data.store import open_store\n",
            "fl/data/catalog.py": DOC,
            "fl/data/store.py": DOC,
        },
        "fl/data/__init__.py:2 imports fl.data.store",
    ),
    (
        heavy_libraries_stay_home,
        {"server/rounds.py": DOC + "import ray.util as r\n"},
        "ray, whose home is clients and fl.s",
    ),
    (heavy_libraries_stay_home, {"fl/messages.py": DOC + "from flwr.app import Message\n"}, "fl.messages imports flwr"),
    (
        heavy_libraries_stay_home,
        {"server/rounds.py": DOC + "from torch.utils.tensorboard import SummaryWriter\n"},
        "server.rounds imports torch.utils.tensorboard, whose home is server.tracking",
    ),
    (
        heavy_libraries_stay_home,
        {"clients/app.py": DOC + "def f():\n    import omegaconf\n"},
        "home is experiments and conf",
    ),
    (
        heavy_libraries_stay_home,
        {"fl/serving/a.py": DOC + "import ray\n", "fl/serving/b.py": DOC + "from ray import serve\n"},
        "fl/serving/a.py and fl/serving/b.py import ray: one adapter",
    ),
    (
        the_command_line_starts_light,
        {"experiments/cli.py": DOC + "from fl import seeds\n", "fl/seeds.py": DOC + "import torch\n"},
        "fl/seeds.py:2 fl.seeds imports torch while `fl --help` waits",
    ),
    (
        no_import_cycles,
        {"fl/data/a.py": DOC + "from fl.data import b\n", "fl/data/b.py": DOC + "def f():\n    import fl.data.a\n"},
        "closes a cycle of imports: fl.data.a -> fl.data.b -> fl.data.a",
    ),
    (modules_are_named_for_a_thing, {"fl/data/array_utils.py": DOC}, "fl/data/array_utils.py:1 'utils' names no thing"),
    (
        modules_are_named_for_a_thing,
        {"server/core/__init__.py": DOC},
        "server/core/__init__.py:1 'core' names no thing",
    ),
    (every_module_has_a_docstring, {"clients/__init__.py": ""}, "clients/__init__.py:1 has no docstring"),
    (no_module_is_long, {"server/rounds.py": DOC + "x = 1\n" * 400}, "server/rounds.py:401 has 401 lines"),
    (
        nobody_edits_sys_path,
        {"clients/app.py": DOC + "import sys\nsys.path.insert(0, '.')\n"},
        "clients/app.py:3 edits",
    ),
    (
        nobody_edits_sys_path,
        {"clients/app.py": DOC + "from sys import path as p\np += ['.']\n"},
        "clients/app.py:3 edits",
    ),
    (nobody_edits_sys_path, {"clients/app.py": DOC + "import sys\nsys.path[:0] = ['.']\n"}, "clients/app.py:3 edits"),
    (
        only_seeds_touches_process_wide_generators,
        {"fl/models/cnn.py": DOC + "from torch import manual_seed\nmanual_seed(1)\n"},
        "fl/models/cnn.py:3 calls torch.manual_seed",
    ),
    (
        only_seeds_touches_process_wide_generators,
        {"server/rounds.py": DOC + "import numpy as np\nnp.random.seed(1)\n"},
        "server/rounds.py:3 calls numpy.random.seed",
    ),
    (
        only_seeds_touches_process_wide_generators,
        {"fl/cohorts.py": DOC + "import random\nrandom.sample([1], 1)\n"},
        "fl/cohorts.py:3 calls random.sample",
    ),
    (ignores_name_their_error, {"fl/seeds.py": DOC + "x = f()  # type: ignore\n"}, "fl/seeds.py:2 `# type: ignore`"),
]


def plant(root: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_tree(root)


@pytest.mark.parametrize("check, files, expected", PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_check_finds_what_was_planted(tmp_path, check, files, expected):
    complaints = check(plant(tmp_path, files))
    assert expected in "\n".join(complaints)


def test_every_check_is_shown_to_fail():
    assert {check for check, _, _ in PLANTED} == set(CHECKS)


def test_a_sound_tree_has_no_complaints(tmp_path):
    tree = plant(
        tmp_path,
        {
            "fl/__init__.py": DOC,
            "fl/errors.py": DOC,
            "fl/seeds.py": DOC + "import torch\ntorch.manual_seed(1)\n",
            "fl/data/__init__.py": DOC,
            "fl/data/store.py": DOC + "from fl.data import split\n",
            "fl/data/split.py": DOC + "import numpy as np\nfrom fl import errors\nnp.random.default_rng(1)\n",
            "clients/actor.py": DOC + "import ray\nimport fl.data.store\n",
            "server/rounds.py": DOC + "from fl.data.split import split  # type: ignore[attr-defined]\n",
            "conf/schema.py": DOC + "import sys\nprint(sys.path)\n",
            "experiments/cli.py": DOC
            + "import conf.schema\ndef main():\n    import hydra, server.rounds, clients.actor\n",
        },
    )
    assert [complaint for check in CHECKS for complaint in check(tree)] == []


# What is tracked belongs to the project alone

# Folders that many machines have say nothing about this one.
SHARED_FOLDERS = {"/", "/tmp", "/home", "/opt", "/srv", "/mnt", "/usr", "/var", "/builds"}
REGISTRIES = re.compile(
    r"--(extra-)?index-url|--find[-]links|\"resolved\": *\"http"
    r"|files\.pythonhosted\.org|pypi\.org/simple|registry\.npmjs\.org|deb\.debian\.org"
)


def machine_traces(root: Path, folders: list[str]) -> list[str]:
    """file:line of every tracked line below ``root`` that names a folder of this machine or a package registry."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if not path.is_file() or b"\0" in (content := path.read_bytes()):
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            named = [folder for folder in folders if folder + "/" in line] + [m[0] for m in REGISTRIES.finditer(line)]
            found += [f"{name}:{number} names {what}" for what in named]
    return found


def test_no_tracked_file_names_this_machine_or_a_registry():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing tells which files are tracked")
    folders = {str(ROOT.parent), str(Path.home()), os.path.realpath(sys.prefix)} - SHARED_FOLDERS
    traces = machine_traces(ROOT, sorted(folders))
    assert not traces, "\n" + "\n".join(traces)


def test_traces_of_a_machine_are_found(tmp_path):
    option = "--index" + "-url"  # in two, or this line would be found itself
    (tmp_path / "run.sh").write_text(f"cd /srv/place/main\npip install {option} x\n")
    (tmp_path / "untracked.sh").write_text("cd /srv/place/main\n")
    for command in (["git", "init", "-q"], ["git", "add", "run.sh"]):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert machine_traces(tmp_path, ["/srv/place"]) == ["run.sh:1 names /srv/place", f"run.sh:2 names {option}"]
