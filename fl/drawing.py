"""What pictures are drawn with: Pillow, and the typeface that matplotlib ships.

matplotlib takes half a second to be imported, and ten times as long to draw, which counts where it is done in a run.
"""

from __future__ import annotations

import functools
import io
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, PALE, BACKGROUND = (33, 37, 41), (108, 117, 125), (255, 255, 255)


def upright(
    image: Image.Image,
    text: str,
    font: ImageFont.FreeTypeFont,
    *,
    middle: int,
    top: int,
    fill: tuple[int, int, int] = INK,
) -> None:
    """Write from below to above, the end of ``text`` at ``top``."""
    line = Image.new("RGB", (round(font.getlength(text)) + 2, 18), BACKGROUND)
    ImageDraw.Draw(line).text((1, 9), text, fill=fill, font=font, anchor="lm")
    image.paste(line.rotate(90, expand=True), (middle - 9, top))


def short(name: str) -> str:
    """At most 16 characters, and what cannot be seen as its escape."""
    visible = name if name.isprintable() and not name.isspace() else repr(name)[1:-1].replace(" ", "␣")
    return visible if len(visible) <= 16 else visible[:15] + "…"


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The typeface, ``size`` pixels high. Found, not imported: that takes a tenth of a second."""
    package = find_spec("matplotlib")
    assert package and package.origin, "we depend on it"
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def png(image: Image.Image) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=6)
    return out.getvalue()
