"""Our weighted mean stands in for Flower's: it has to give its bits, whatever arrays come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedYogi, MultiKrum
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fl import wire
from fl.foreign import means, records

WEIGHTS = (3, 17, 0.5)
SHAPES = {"scalar": (), "small": (7, 3), "empty": (0, 4), "large": (means.PIECE + 11, 3)}


def as_flower(values: np.ndarray) -> Array:
    return Array(values)


def as_npy(values: np.ndarray) -> Array:
    whole = Array(values)
    return records.Array(whole.dtype, tuple(whole.shape), whole.stype, whole.data)


def replies(make: Callable[[np.ndarray], Array], dtypes: tuple[str, ...]) -> list[RecordDict]:
    draw = np.random.default_rng(5)
    found = []
    for weight, dtype in zip(WEIGHTS, dtypes, strict=True):
        arrays = ArrayRecord()
        for name, shape in SHAPES.items():
            values = np.asarray(100 * draw.normal(size=shape)).astype(dtype)
            arrays[name] = make(np.asfortranarray(values) if name == "small" else values)
        found.append(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": weight})}))
    return found


@pytest.mark.parametrize("make", [as_flower, as_npy, wire.Array], ids=["flower", "npy", "held"])
@pytest.mark.parametrize(
    "dtypes",
    [("float32",) * 3, ("float64",) * 3, ("float16",) * 3, ("int64",) * 3, ("float64", "float32", "float16")],
    ids=["float32", "float64", "float16", "int64", "mixed"],
)
def test_mean_has_the_bits_of_flowers(make: Callable[[np.ndarray], Array], dtypes: tuple[str, ...]) -> None:
    given = replies(make, dtypes)
    before = [array.numpy().tobytes() for record in given for array in record["arrays"].values()]
    ours, flowers = means.weighted_arrays(given, "num-examples"), aggregate_arrayrecords(given, "num-examples")
    assert list(ours) == list(flowers)
    for name in flowers:
        mine, its = ours[name].numpy(), flowers[name].numpy()
        assert (mine.dtype, mine.shape, mine.tobytes()) == (its.dtype, its.shape, its.tobytes())
    assert before == [array.numpy().tobytes() for record in given for array in record["arrays"].values()]


def test_what_flower_cannot_add_up_is_refused_alike() -> None:
    given = replies(as_flower, ("int64", "float32", "float32"))
    given[0]["arrays"] = ArrayRecord({"small": Array(np.zeros(7, dtype=np.complex64))})
    given[1]["arrays"] = ArrayRecord({"small": Array(np.zeros((4, 5)))})
    for mean in (means.weighted_arrays, aggregate_arrayrecords):
        with pytest.raises(ValueError, match="broadcast"):
            mean(given, "num-examples")


def test_strategies_look_it_up_where_it_is_put() -> None:
    """With another Flower that finds the function elsewhere, ours would silently not be used."""
    means.installed()
    for kind, looks_in in ((FedAvg, FedAvg), (FedYogi, FedAvg), (MultiKrum, MultiKrum)):
        method = next(vars(k)["aggregate_train"] for k in kind.__mro__ if "aggregate_arrayrecords" in _names(k))
        assert method.__module__ == looks_in.__module__
        assert method.__globals__["aggregate_arrayrecords"] is means.weighted_arrays


def _names(kind: type) -> tuple[str, ...]:
    method = vars(kind).get("aggregate_train")
    return method.__code__.co_names if method else ()
