"""Where the shipped data sets lie: to be hashed without being read."""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).parent / "files"
FILES_OF: dict[str, tuple[Path, ...]] = {
    "mnist": (FILES / "mnist.npz",),
    "fashion_mnist": (FILES / "fashion_mnist_12k.npz",),
    "shakespeare": (FILES / "shakespeare_by_role.npz",),
    "heart_disease": (FILES / "heart_disease_by_hospital.npz",),
}
