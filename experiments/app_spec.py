"""A foreign Flower app as its pyproject.toml describes it, and its run config with what the user overrides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.choices import one_of
from fl.errors import BadInput

PYPROJECT = "pyproject.toml"
PAIR = re.compile(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)")
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class AppSpec:
    """What to run: ``folder`` is first on the app's import path, the references are MODULE:OBJECT."""

    folder: Path
    serverapp: str
    clientapp: str
    run_config: Mapping[str, Any]


def read_app(path: Path, *run_config: str) -> AppSpec:
    """The app in a folder with a pyproject.toml. Raises BadInput by the key the user wrote."""
    folder = path.expanduser().resolve()
    file = folder / PYPROJECT
    if not file.is_file():
        allowed = "the folder of a Flower app: one with a pyproject.toml; or give --server and --client"
        raise BadInput(key="PATH", got=f"{path}, which holds no pyproject.toml", allowed=allowed)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("flwr", {}).get("app", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(key="PATH", got=str(file), allowed=f"a file in TOML ({error})") from error
    components = settings.get("components") or {}
    if "agentapp" in components:
        allowed = "a serverapp and a clientapp: an AgentApp has no clients to simulate, and runs on a SuperLink alone"
        raise BadInput(key=f"{file}: tool.flwr.app.components", got="agentapp", allowed=allowed)
    for name in ("serverapp", "clientapp"):
        check_reference(components.get(name), key=f"{file}: tool.flwr.app.components.{name}")
    config = flat(settings.get("config") or {}, key=f"{file}: tool.flwr.app.config")
    given = read_overrides(*run_config)
    for name in given:
        if name not in config:
            raise BadInput(key="--run-config", got=name, allowed=one_of(sorted(config), name) or "nothing: none is set")
    return AppSpec(folder, components["serverapp"], components["clientapp"], {**config, **given})


def check_reference(reference: Any, *, key: str) -> None:
    """BadInput unless ``reference`` is MODULE:OBJECT."""
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise BadInput(key=key, got=reference, allowed='MODULE:OBJECT, such as "my_app.server_app:app"')


def read_overrides(*texts: str) -> dict[str, Any]:
    """``k=v k2="v 2"`` with TOML's values, as `flwr run` takes them, or names of TOML files; later ones win.

    >>> read_overrides('lr=0.1 name="a b" server.rounds=3', "lr=0.2")
    {'lr': 0.2, 'name': 'a b', 'server.rounds': 3}
    """
    return {name: value for text in texts for name, value in _overrides(text).items()}


def _overrides(text: str) -> dict[str, Any]:
    if text.endswith(".toml") and "=" not in text:
        pairs = _text_of(Path(text).expanduser())
    elif PAIR.sub("", text).strip():
        raise BadInput(key="--run-config", got=text, allowed='pairs such as: learning-rate=0.1 name="text"')
    else:
        pairs = "\n".join(f"{name} = {value}" for name, value in PAIR.findall(text))
    try:
        return flat(tomllib.loads(pairs), key="--run-config")
    except tomllib.TOMLDecodeError as error:
        allowed = f'values as in TOML: 1, 0.1, true, "text" ({error})'
        raise BadInput(key="--run-config", got=text, allowed=allowed) from error


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            key="--run-config", got=str(file), allowed=f"a file in TOML that can be read ({error})"
        ) from error


def flat(values: Mapping[str, Any], *, key: str, prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, as apps get them. BadInput for what Flower's run config cannot hold."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, key=key, prefix=f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            found[prefix + name] = value
        else:
            raise BadInput(key=f"{key}.{prefix}{name}", got=value, allowed="a number, a truth value or text")
    return found
