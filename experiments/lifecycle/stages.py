"""The stages, in order. A new one is a module beside this with a STAGE, and a line here behind what it depends on."""

from __future__ import annotations

from experiments.lifecycle import ingest, register, split, train, understand
from experiments.lifecycle.stage import Stage

STAGES: tuple[Stage, ...] = (
    understand.STAGE,
    ingest.STAGE,
    split.STAGE,
    train.STAGE,
    register.STAGE,
)
