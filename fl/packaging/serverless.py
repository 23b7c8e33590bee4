"""A zip for a platform that runs functions: a bundle, onnxruntime, and the few modules of ours that read and ask it.

The handler is ``fl.serving.serverless.answer``. No torch: it alone is larger than such a platform takes. The libraries
are those of this environment, so the zip is for its kind of machine and its release of Python.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fl.bundle import Bundle
from fl.errors import BadInput
from fl.files import make_parents, storing

HANDLER = "fl.serving.serverless.answer"
LARGEST_ZIP, LARGEST_FOLDER = 50 * 10**6, 250 * 10**6
"""Bytes that AWS Lambda takes of an uploaded zip, and of what is in it."""

OURS = (
    *("__init__", "bundle", "errors", "faults", "files", "keys", "onnx_session", "parameters", "signature"),
    *("untrusted", "serving/__init__", "serving/model", "serving/rows", "serving/serverless"),
)
LIBRARIES = ("numpy", "onnxruntime")
SIGNED = ("cffi", "cryptography")
"""What it takes to check a signature besides; packed where the bundle bears one."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_LEFT_OUT = {"__pycache__", "tests", "testing", "f2py", "tools", "transformers", "quantization", "datasets", "include"}
"""Folders of the libraries that only their developers, and those who export models, need."""


@dataclass(frozen=True)
class Zip:
    """What was written: bytes of the file, and of what is in it."""

    path: Path
    packed_bytes: int
    bytes: int


def write(bundle: Bundle, path: Path) -> Zip:
    """Write the zip; the same bundle and libraries, the same bytes.

    Raises BadInput where the bundle has no ONNX file, or the zip would be larger than the platform takes; then there
    is none.
    """
    if "onnx" not in bundle.manifest["formats"]:
        allowed = "one with the format onnx: fl package --format onnx"
        raise BadInput(key="BUNDLE", got=str(bundle.folder), allowed=allowed)
    make_parents(path)
    files = dict(_files(bundle))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".zip.", delete=False) as file:
        draft = Path(file.name)
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr, entry.create_system = 0o100644 << 16, 3
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, files[name].read_bytes())
        made = Zip(path, draft.stat().st_size, sum(source.stat().st_size for source in files.values()))
        if made.packed_bytes > LARGEST_ZIP or made.bytes > LARGEST_FOLDER:
            got = f"{made.packed_bytes / 1e6:.0f} MB zipped and {made.bytes / 1e6:.0f} MB unzipped"
            raise BadInput(key="BUNDLE", got=got, allowed="at most 50 MB zipped and 250 MB unzipped")
        with storing(path, site="bundle"):
            draft.chmod(0o644)
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return made


def _files(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """Name in the zip -> the file that goes there."""
    package = Path(__file__).resolve().parents[1]
    for name in OURS:
        yield f"fl/{name}.py", package / f"{name}.py"
    for path in bundle.folder.rglob("*"):
        if path.is_file():
            yield f"bundle/{path.relative_to(bundle.folder).as_posix()}", path
    for library in (*LIBRARIES, *(SIGNED if bundle.signed_by else ())):
        distribution = importlib.metadata.distribution(library)
        for file in distribution.files or ():
            if _needed(file):
                yield file.as_posix(), Path(str(distribution.locate_file(file)))


def _needed(file: PurePosixPath) -> bool:
    licences = file.parts[0].endswith(".dist-info") and "licens" in file.as_posix().lower()
    code = not file.parts[0].endswith(".dist-info") and file.suffix not in (".pyi", ".pxd", ".h", ".pyc", ".a")
    return ".." not in file.parts and (licences or (code and not _LEFT_OUT & set(file.parts)))
