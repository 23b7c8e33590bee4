"""The stages, in order. A new one is a module beside this with a STAGE, and a line here behind what it depends on."""

from __future__ import annotations

from experiments.lifecycle import (
    accept,
    evaluate,
    ingest,
    package,
    profile,
    register,
    select,
    split,
    train,
    understand,
    validate,
    wrangle,
)
from experiments.lifecycle.stage import Stage

STAGES: tuple[Stage, ...] = (
    understand.STAGE,
    ingest.STAGE,
    profile.STAGE,
    validate.STAGE,
    wrangle.STAGE,
    split.STAGE,
    select.STAGE,
    train.STAGE,
    evaluate.STAGE,
    accept.STAGE,
    package.STAGE,
    register.STAGE,
)
