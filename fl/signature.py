"""What goes into a model and what comes out: the part of a data set that may be known outside a client.

A signature is public: shapes, names, and statistics that were merged over clients. It is stored beside every version,
so that a model can be rebuilt and used without the data it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from fl.errors import BadInput

Task: TypeAlias = Literal["classification", "regression", "next_token"]
TASKS: tuple[str, ...] = get_args(Task)


@dataclass(frozen=True)
class Signature:
    """Shapes and meaning of one example.

    task            what the model is asked: a class, a number, or the next token at every position
    input_shape     of one example as the model gets it: (1, 28, 28), (13,), (80,) tokens
    input_dtype     "float32", "float64" or "int64" (tokens)
    num_outputs     classes, vocabulary size, or 1 for regression
    input_scale     stored inputs are multiplied by it: 1/255 for uint8 images, else 1
    class_names     of each class or token, or empty
    feature_names   of each column of a table, or empty
    medians         a column, fills missing values inside a table model; empty: nothing is missing
    indicators      columns for which a table model adds a 0/1 column "was missing"
    feature_mean, feature_std   a column (after filling), used by table models; empty: not standardised
    target_mean, target_std     of a regression target, in its own unit; 0 and 1: as it is
    recipe          what makes features of the columns of a table (fl/transforms), as text; empty: the fields above do
    """

    task: Task
    input_shape: tuple[int, ...]
    input_dtype: str
    num_outputs: int
    input_scale: float = 1.0
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    medians: tuple[float, ...] = ()
    indicators: tuple[int, ...] = ()
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0
    recipe: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BadInput(key="dataset.task", got=self.task, allowed=", ".join(TASKS))
        if self.num_outputs < 1:
            raise BadInput(key="dataset", got=f"{self.num_outputs} outputs", allowed="at least one class or target")

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the columns of a table go by: their own names, or x0, x1 ... where they have none."""
        return self.feature_names or tuple(f"x{c}" for c in range(self.input_shape[0]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Signature:
        """The inverse of ``to_dict``; unknown names are ignored, so that later releases can be read."""
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**given)
