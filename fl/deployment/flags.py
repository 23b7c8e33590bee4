"""A feature flag by the OpenFeature standard: in memory, or a flagd file that is read again when it changes.

A provider a process, named after the file: the standard's client finds it. flagd's own rules for a user (targeting,
fractions) work: ``targetingKey`` is the user, ``context`` the request's context.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from fl.deployment.feature_flag import Flag
from fl.errors import BadInput, MissingExtra

EVERY_MILLISECONDS = 500
"""How often a flag file is looked at for changes."""


def check(flag: str, source: str) -> None:
    """Raise BadInput for a source that is no flag file with ``flag`` in it, MissingExtra without the packages."""
    needed = "openfeature" if source == "memory" else "openfeature.contrib.provider.flagd"
    try:
        there = importlib.util.find_spec(needed) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        package = "openfeature-sdk" if source == "memory" else "openfeature-provider-flagd"
        raise MissingExtra(key="feature_flag", package=package, extra="deploy")
    if source == "memory":
        return
    path, allowed = Path(source), "memory, or a flag file of flagd: JSON or YAML with `flags`"
    try:
        known = _read(path)["flags"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(key="--option source", got=source, allowed=f"{allowed} ({type(error).__name__})") from error
    if flag not in known:
        raise BadInput(
            key="--option flag", got=flag, allowed=f"a flag of {source}: {', '.join(known) or 'it has none'}"
        )


def opened(flag: str, source: str, value: bool | str) -> Flag:
    """The flag as a function of a user and a context: from the file ``source``, or ``value`` if it is "memory"."""
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.provider import AbstractProvider

    check(flag, source)
    provider: AbstractProvider
    if source == "memory":
        from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

        provider = InMemoryProvider({flag: InMemoryFlag("set", {"set": value})})
        texts = isinstance(value, str)
    else:
        from openfeature.contrib.provider.flagd import FlagdProvider
        from openfeature.contrib.provider.flagd.config import ResolverType

        provider = FlagdProvider(
            resolver_type=ResolverType.FILE, offline_flag_source_path=source, deadline_ms=EVERY_MILLISECONDS
        )
        texts = any(isinstance(v, str) for v in _read(Path(source))["flags"][flag]["variants"].values())
    domain = f"meadow {flag} {source} {value}"
    api.set_provider_and_wait(provider, domain)
    client = api.get_client(domain)

    def evaluated(user: str, context: str | None) -> bool | str:
        about = EvaluationContext(user, {"context": context} if context is not None else {})
        if texts:
            return client.get_string_value(flag, "", about)
        return client.get_boolean_value(flag, False, about)

    return evaluated


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        import yaml

        return dict(yaml.safe_load(text))
    return dict(json.loads(text))
