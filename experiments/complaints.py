"""What Hydra and OmegaConf complain of, said as every bad input is: key, got, allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from experiments.choices import GROUPS, LIFECYCLE_GROUPS, choices, closest, flat, one_of
from fl.errors import BadInput

COMPLAINTS = (HydraException, OmegaConfBaseException, ValueError)
Known = Callable[[], DictConfig]
_GRAMMAR = "KEY=VALUE, with quotes around a value of several words or with commas"


def explain(error: Exception, overrides: Sequence[str], known: Known) -> BadInput:
    """The complaint about ``overrides`` as BadInput. ``known`` composes what the chosen groups have, to name keys."""
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return BadInput(key=key.strip() or "overrides", got=repr(value or error.override), allowed=_GRAMMAR)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return BadInput(key=group, got=choice, allowed=one_of(error.options or choices(group), choice))
    cause = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return unknown_key(*_given(str(cause.full_key), overrides), known())
    if isinstance(cause, ValidationError):
        got = "null" if cause.value is None else cause.value
        return BadInput(key=str(cause.full_key), got=got, allowed=_type_of(cause))
    why = str(error).splitlines()[0]
    return BadInput(key="overrides", got=" ".join(overrides), allowed=f"what Hydra can compose ({why})")


def refuse_unfit(overrides: Sequence[Override], *, multirun: bool) -> None:
    """Refuse what Hydra would misread: several values without --multirun, and choices that are no names."""
    for override in overrides:
        key = override.key_or_group
        if override.is_sweep_override() and key == "run_dir":
            got = override.get_value_string()
            raise BadInput(key=key, got=got, allowed="one folder; each job gets one of its own inside it")
        if override.is_sweep_override() and not multirun:
            allowed = f"one value; --multirun runs them all; {key}=[...] is a list, quotes make a string"
            raise BadInput(key=key, got=override.get_value_string(), allowed=allowed)
        known = key in (*GROUPS, *LIFECYCLE_GROUPS)
        names = [*choices(key), *(["null"] if key == "experiment" else [])] if known else []
        if names and not override.is_sweep_override() and not override.is_delete():
            value = override.value()
            if not isinstance(value, str | dict) and not (key == "experiment" and isinstance(value, list | NoneType)):
                got = override.get_value_string()
                raise BadInput(key=key, got=got, allowed=one_of(names, got))


def refuse_unknown_keys(config: DictConfig) -> None:
    """Refuse keys that Hydra's + put where only those of conf/schema.py belong."""
    for prefix, node in _typed_nodes(config):
        known = {one.name for one in fields(OmegaConf.get_type(node))}  # type: ignore[arg-type]
        for key in node:
            if key not in known:
                raise unknown_key(f"{prefix}{key!s}", str(node._get_node(key)), config)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; BadInput where one is missing or refers to what is not there."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = str(error.full_key or "overrides")
        parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        got = OmegaConf.to_container(parent, resolve=False).get(key.rpartition(".")[2], "nothing")  # type: ignore[union-attr]
        got = "nothing" if got == "???" else got
        raise BadInput(key=key, got=got, allowed=f"a value ({str(error).splitlines()[0]})") from error


def unknown_key(key: str, got: str, config: DictConfig) -> BadInput:
    """BadInput for ``key``, naming the keys beside it and those anywhere that it resembles."""
    everything: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    parent, beside = "", everything
    for name in key.split(".")[:-1]:
        if not isinstance(beside.get(name), dict):
            break
        parent, beside = f"{parent}{name}.", beside[name]
    names = [str(name) for name in beside if f"{parent}{name}" != key]
    leaf = key.rpartition(".")[2]
    elsewhere = [name for name in flat(everything) if name != key]
    like = [parent + name for name in closest(names, key.removeprefix(parent))]
    like += [name for name in elsewhere if name.endswith(f".{leaf}")] + closest(elsewhere, key, cutoff=0.8)
    hint = f"; did you mean {' or '.join(list(dict.fromkeys(like))[:3])}?" if like else ""
    where = f" of {parent[:-1]}" if parent else ""
    return BadInput(key=key, got=got, allowed=f"the keys{where}: {', '.join(names)}{hint}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it, whether it was raised from them or merely after them."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _given(key: str, overrides: Sequence[str]) -> tuple[str, str]:
    """The override that is about ``key``, as its own key and value; ``key`` itself where that is not so clear."""
    for text in overrides:
        name, _, value = text.lstrip("+~").partition("=")
        if f"{name}.".startswith(f"{key}."):
            return name, value
    return key, "a key"


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    list[str]: "a list of names: [a,b]",
}


def _type_of(error: ValidationError) -> str:
    """Words for the type of the value that did not fit."""
    owner, name = error.object_type, str(error.key)
    if owner is None or not is_dataclass(owner) or name not in (hints := get_type_hints(owner)):
        return str(error).splitlines()[0]
    hint = hints[name]
    kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
    return " or ".join(_WORDS.get(kind, f"{kind.__name__}'s settings".lower()) for kind in kinds)


def _typed_nodes(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, DictConfig]]:
    if is_dataclass(OmegaConf.get_type(config)):
        yield prefix, config
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _typed_nodes(node, f"{prefix}{key!s}.")
