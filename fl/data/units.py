"""A column in another unit than it should be, told from its mean and deviation alone.

multiplied     both stretched by the same factor: grams for kilograms, whatever the factor
converted      y = a x + b of ``CONVERSIONS``: a deviation stretched by a, and the mean where a and b put it

Any two means and deviations fit some a and b, so that only conversions that people make are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl.moments import Moments

FACTOR = 1.5
"""How far mean and deviation must have been stretched for a change of unit to be suspected ..."""
ALIKE = 1.25
"""... and how alike both must have been, or the deviation and the conversion's a."""
NEAR = 0.75
"""How far the mean may lie from where a conversion puts it, in deviations."""

CONVERSIONS: Mapping[str, tuple[float, float]] = {
    "Celsius to Fahrenheit": (1.8, 32.0),
    "Fahrenheit to Celsius": (1 / 1.8, -32 / 1.8),
    "Celsius to kelvin": (1.0, 273.15),
    "kelvin to Celsius": (1.0, -273.15),
    "Fahrenheit to kelvin": (1 / 1.8, 273.15 - 32 / 1.8),
    "kelvin to Fahrenheit": (1.8, 32 - 1.8 * 273.15),
    "days since 1970 to days since 1900": (1.0, 25_569.0),
    "days since 1900 to days since 1970": (1.0, -25_569.0),
}


def change_of_unit(m: Moments, reference: Mapping[str, Any]) -> str | None:
    """What the values look like, in words; None where they look like the reference's, or like nothing known.

    ``reference`` has ``mean`` and ``deviation``, or lacks them.
    """
    if reference.get("mean") is None or not reference.get("deviation") or m.count < 2 or not m.deviation:
        return None
    mean, deviation = float(reference["mean"]), float(reference["deviation"])
    for name, (a, b) in CONVERSIONS.items():
        expected, spread = a * mean + b, a * deviation
        is_there = abs(m.mean - expected) <= NEAR * spread and 1 / ALIKE <= m.deviation / spread <= ALIKE
        if is_there and abs(m.mean - mean) > 2 * deviation:
            return f"values look like {a:.3g} x {b:+.5g} ({name})"
    if not mean:
        return None
    by_mean, by_deviation = m.mean / mean, m.deviation / deviation
    if by_mean <= 0 or not 1 / ALIKE <= by_mean / by_deviation <= ALIKE or 1 / FACTOR <= by_mean <= FACTOR:
        return None
    return f"values look multiplied by about {by_mean:.3g}"
