"""The weighted mean, accumulated: one update in memory at a time, in client order.

    mean = sum_i w_i delta_i / sum_i w_i

Partial sums merge: a work unit adds up its clients, the server adds up the units in unit order. The order of
additions depends on the cohort alone, hence so do the bits. Sums are kept in the dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl.parameters import Array, Parameters, cast, copy, is_floating


class WeightedSum:
    """A running sum of weighted arrays. Memory is that of one set of arrays, however many are added."""

    def __init__(self) -> None:
        self.arrays: Parameters = {}
        self.weight = 0.0

    def add(self, arrays: Mapping[str, Array], weight: float) -> None:
        """Add ``weight * arrays``; ``weight`` > 0. Integer arrays are summed in float64."""
        factors = {name: a.dtype.type(weight) if is_floating(a) else float(weight) for name, a in arrays.items()}
        self._plus({name: np.asarray(a * factors[name]) for name, a in arrays.items()})
        self.weight += weight

    def merge(self, arrays: Mapping[str, Array], weight: float) -> None:
        """Add another sum, whose weights are ``weight`` in total."""
        self._plus(arrays if self.arrays else copy(arrays))
        self.weight += weight

    def mean(self, like: Mapping[str, Array]) -> Parameters:
        """The weighted mean, in the dtypes of ``like``; integers are rounded."""
        if not self.weight:
            raise ValueError("the mean of nothing")
        return {name: cast(value / value.dtype.type(self.weight), like[name]) for name, value in self.arrays.items()}

    def _plus(self, arrays: Mapping[str, Array]) -> None:
        """Add ``arrays``; the first of all become the sum themselves."""
        if not self.arrays:
            self.arrays = dict(arrays)
            return
        for name, value in arrays.items():
            np.add(self.arrays[name], value, out=self.arrays[name])
