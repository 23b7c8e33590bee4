"""`fl serve`: versions of a registry, or bundles, behind HTTP."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from torch import nn

    from fl.inference_log.writer import InferenceLog
    from fl.packaging.predict import Predict
    from fl.releases import Policy, Release
    from fl.serving.batching import Batcher
    from fl.serving.model import Model
    from fl.serving.server import Tls
    from fl.serving.service import Limits
    from fl.serving.slots import Slot
    from fl.serving.steering import Steering

FIRST = "model"
"""What the version is called that is named without ``NAME=``."""

RUNTIMES = ("torch", "onnx")
NEEDED = {"fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve", "orjson": "serve"}


def need(packages: Mapping[str, str], *, key: str) -> None:
    """Raise MissingExtra for the first of ``packages`` (to the extra that brings it) that is not installed."""
    import importlib.util

    for package, extra in packages.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(key=key, package=package, extra=extra)


def named(versions: Sequence[str]) -> dict[str, str]:
    """What each name means, of ``[NAME=]VERSION`` texts. Raises BadInput for a name that stands twice, or is none."""
    found: dict[str, str] = {}
    for text in versions:
        name, equals, version = text.partition("=")
        name, version = (name, version) if equals else (FIRST, text)
        if not name or not version or "/" in name:
            raise BadInput(key="VERSION", got=text, allowed="VERSION or NAME=VERSION, and no slash in NAME")
        if name in found:
            raise BadInput(key="VERSION", got=text, allowed=f"each name once; {name} is {found[name]} already")
        found[name] = version
    return found


def serve(
    versions: Sequence[str],
    *,
    registry: Path,
    host: str,
    port: int,
    runtime: str,
    token_file: Path | None,
    tls: Tls | None,
    limits: Limits,
    batcher: Batcher,
    most_connections: int,
    lookup: str | None = None,
    log: Path | None = None,
    releases: bool = True,
) -> None:
    """Serve ``versions`` until a signal; the address is the one line of standard output.

    log        the folder of the inference log
    releases   follow the releases of the aliases that are served

    Raises BadInput or MissingExtra before anything listens.
    """
    need(NEEDED, key="fl serve")
    source = Source(registry, runtime)
    means, tokens = named(versions), tokens_of(token_file)
    from fl.serving.server import serve as listen

    app, by_name = application_of(
        means, source, batcher=batcher, limits=limits, tokens=tokens, releases=releases, lookup=lookup, log=log
    )
    try:
        listen(
            app, host=host, port=port, tls=tls, most_connections=most_connections, started=lambda at: _say(at, by_name)
        )
    except OSError as error:
        got = f"{host}:{port}"
        raise BadInput(
            key="--port", got=got, allowed=f"an address that can be listened at ({error.strerror})"
        ) from error
    if not app.state.whole:  # a model hangs in a thread that Python would wait for; all else has been closed
        sys.stderr.flush()
        os._exit(0)


def application_of(
    means: Mapping[str, str],
    source: Source,
    *,
    batcher: Batcher,
    limits: Limits,
    tokens: Sequence[str],
    releases: bool,
    lookup: str | None,
    log: Path | None,
    tells_ids: bool = True,
) -> tuple[Any, dict[str, Slot]]:
    """The application of one process, and what it serves by name: all of ``means``, loaded."""
    from fl.serving.service import application
    from fl.serving.slots import Slot, Slots

    by_name = {name: Slot(meaning, source.load(meaning)) for name, meaning in means.items()}
    beside = []
    if lookup is not None:
        from fl.serving.lookup import lookup_routes
        from fl.serving.predictions import open_predictions

        beside = [lookup_routes(open_predictions(lookup, key="--lookup", writing=False), by_name)]
    taken_down = _log(log)
    app = application(
        Slots(by_name, source.look, source.load),
        batcher=batcher,
        limits=limits,
        tokens=tokens,
        steering=steering_of(source, by_name, batcher, taken_down) if releases else (),
        log=taken_down,
        beside=beside,
        tells_ids=tells_ids,
    )
    return app, by_name


def _log(folder: Path | None) -> InferenceLog | None:
    if folder is None:
        return None
    from fl.inference_log.writer import InferenceLog

    log = InferenceLog(folder)
    if log.lost_before:
        print(f"{folder}: {log.lost_before} records were lost when servers were killed", file=sys.stderr)
    return log


def steering_of(
    source: Source, by_name: Mapping[str, Slot], batcher: Batcher, log: InferenceLog | None
) -> list[Steering]:
    """What follows the releases of the aliases among ``by_name``."""
    from fl.registry.layout import ALIASES
    from fl.serving.steering import Steering

    return [
        Steering(source.registry, slot, policy_of=policy_of, load=source.load, batcher=batcher, log=log)
        for slot in by_name.values()
        if slot.means in ALIASES
    ]


def _say(address: str, slots: Mapping[str, Slot]) -> None:
    print(address, flush=True)
    for name, slot in slots.items():
        follows = "" if slot.means == slot.current.version else f", which is {slot.means}"
        print(f"{name}: {slot.current.version}{follows}", file=sys.stderr, flush=True)
    print(f"{address}/docs says what can be asked; Ctrl-C ends it", file=sys.stderr, flush=True)


def tokens_of(path: Path | None) -> list[str]:
    """The tokens of a file, one a line; none without a file. Raises BadInput."""
    if path is None:
        return []
    try:
        tokens = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(key="--token-file", got=str(path), allowed=f"a text file, a token a line ({error})") from error
    if not tokens:
        raise BadInput(key="--token-file", got=f"{path}, which is empty", allowed="at least one token, one a line")
    return tokens


class Source:
    """Finds versions in a registry, and bundles in folders, and makes models of them for ``runtime``, of RUNTIMES."""

    def __init__(self, registry: Path, runtime: str) -> None:
        if runtime not in RUNTIMES:
            raise BadInput(key="--runtime", got=runtime, allowed=" or ".join(RUNTIMES))
        self.registry, self.runtime = registry, runtime

    def look(self, name: str) -> str:
        """The hash of what ``name`` means now. Raises BadInput."""
        if is_bundle(name):
            from fl.bundle import MANIFEST
            from fl.files import sha256_file

            return sha256_file(Path(name) / MANIFEST)
        from fl.registry import Registry

        return Registry.existing(self.registry).version(name).hash

    def load(self, name: str) -> Model:
        """The model that ``name`` means now, ready to be asked. Raises BadInput, CorruptFile."""
        return self._bundle(Path(name)) if is_bundle(name) else self._version(name)

    def _version(self, name: str) -> Model:
        from experiments.export import built
        from fl.models.arrays import load_parameters
        from fl.registry import Registry
        from fl.serving.model import Model

        store = Registry.existing(self.registry)
        version = store.version(name)
        module, signature = built(version)
        if self.runtime == "torch":
            load_parameters(module, store.parameters(version))
            answer = _by_torch(module)
        else:
            answer = self._exported(version.name)
        return Model(version.name, version.hash, signature, answer, steady=self.runtime == "onnx")

    def _bundle(self, folder: Path) -> Model:
        from fl.bundle import open_bundle
        from fl.serving.model import Model

        bundle = open_bundle(folder)
        steady = "onnx" in bundle.manifest["formats"]
        if steady:
            from fl.onnx_session import read

            answer = read(bundle.path("onnx"))
        else:
            answer = _by_torch(bundle.module())
        return Model(bundle.id[:12], bundle.id, bundle.signature, answer, steady=steady)

    def _exported(self, version: str) -> Predict:
        """The version by onnxruntime: exported first, and proved against the model on its test examples."""
        from experiments.export import export
        from fl.onnx_session import read

        with tempfile.TemporaryDirectory(prefix="meadow-serve-") as folder:
            (file,) = export(version, formats=["onnx"], output=Path(folder), registry=self.registry)
            return read(file.path)


def is_bundle(name: str) -> bool:
    """Whether a version's name is that of a folder with a bundle in it."""
    return (Path(name) / "manifest.json").is_file()


def _by_torch(module: nn.Module) -> Predict:
    """One thread: the batcher asks one call at a time, and several servers share a machine."""
    import torch

    from fl.models.evaluate import outputs_of

    torch.set_num_threads(1)

    return lambda inputs: outputs_of(module, [torch.from_numpy(inputs)])


def policy_of(release: Release) -> Policy:
    """The policy of a release. Raises BadInput for one that this release of Meadow does not know."""
    from fl.deployment import policy_for

    return policy_for(release)
