"""What a multirun sweeps over, as Optuna's distributions.

a,b,c   choice(a,b,c)       one of them
range(1,9,2)                a number of the range
interval(0.01,1)            a number between; tag(log,interval(0.01,1)) on a logarithmic scale
int(interval(1,8))          a whole number between
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from fl.errors import BadInput

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """``fixed`` overrides, what is searched by key, and of each key the values that stand for it in a check."""

    fixed: tuple[str, ...]
    searched: Mapping[str, BaseDistribution]
    examples: Mapping[str, tuple[str, ...]]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a job with these values."""
        return [*self.fixed, *(f"{key}={values[key]}" for key in self.searched)]

    def probes(self) -> list[list[str]]:
        """Overrides of as few jobs as have every example in one of them."""
        first = {key: values[0] for key, values in self.examples.items()}
        others = [{**first, key: value} for key, values in self.examples.items() for value in values[1:]]
        return [self.overrides(values) for values in (first, *others)]


def space_of(overrides: Sequence[Override], *, grid: bool) -> Space:
    """The space of parsed overrides. Raises BadInput for a sweep without bounds, or a grid of an interval."""
    fixed: list[str] = []
    searched: dict[str, BaseDistribution] = {}
    examples: dict[str, tuple[str, ...]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
            continue
        searched[key], examples[key] = _distribution(override, key, grid=grid)
    if not searched:
        allowed = "something to search: KEY=a,b,c or KEY=interval(LOW,HIGH)"
        raise BadInput(key="overrides", got="one value for every key", allowed=allowed)
    return Space(tuple(fixed), searched, examples)


def _distribution(override: Override, key: str, *, grid: bool) -> tuple[BaseDistribution, tuple[str, ...]]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        if grid:
            raise BadInput(key=key, got=override.get_value_string(), allowed="values to list: a,b,c or range(...)")
        if low is None or high is None or low > high or (log and low <= 0):
            allowed = "interval(LOW,HIGH), LOW not above HIGH, and above 0 on a logarithmic scale"
            raise BadInput(key=key, got=override.get_value_string(), allowed=allowed)
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log), (str(low), str(high))
        return FloatDistribution(float(low), float(high), log=log), (str(float(low)), str(float(high)))
    texts = tuple(override.sweep_string_iterator())
    numbers = list(sweep.range()) if isinstance(sweep, RangeSweep) and not sweep.shuffle else []
    if not grid and len(numbers) > 1 and all(isinstance(number, int) for number in numbers):
        low, high = min(numbers), max(numbers)
        return IntDistribution(low, high, step=abs(numbers[1] - numbers[0])), (str(low), str(high))
    return CategoricalDistribution(texts), texts
