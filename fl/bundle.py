"""A bundle: the packaged model as files. Packaging writes it, serving reads it, and all is checked before use.

    <id>/
      manifest.json        what it is; every other file with its SHA-256 and size; the schema of this layout
      SIGNATURE            64 bytes, Ed25519 over manifest.json; there if a key was given
      model.safetensors    the parameters
      signature.json       what goes in and comes out
      preprocessing.json   from a raw row to what goes in
      labels.json          what comes out is called
      card.md              the model card
      formats/...          the same model for other programs, each proved

``<id>`` is the SHA-256 of manifest.json, so a bundle is known by what is in it. There is no time, no folder and no name
of a run inside: whoever packages the same model again gets the same bytes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import BadInput, CorruptFile
from fl.files import FILES, read_json, sha256_file, storing, sync_folder, writable_folder, write_bytes, write_json
from fl.keys import public_half, read_public_key, verifies
from fl.parameters import Parameters, sha256
from fl.signature import Signature
from fl.untrusted import refuse_objectionable

if TYPE_CHECKING:
    from torch import nn

    from fl.keys import Ed25519PrivateKey

KIND, SCHEMA = "meadow model bundle", 1
"""``SCHEMA`` grows when the layout changes; every earlier one stays readable."""

MANIFEST, SIGNED, WEIGHTS, CARD = "manifest.json", "SIGNATURE", "model.safetensors", "card.md"
INPUTS, PREPROCESSING, LABELS = "signature.json", "preprocessing.json", "labels.json"
NEEDED = (WEIGHTS, INPUTS, PREPROCESSING, LABELS, CARD)
SAYS = ("version", "formats")
_ID = re.compile(r"[0-9a-f]{64}")
_OWN_MODEL = re.compile(r"fl\.models\.[a-z0-9_]+\.build")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was verified when it was opened.

    id         SHA-256 of its manifest
    manifest   version (model_sha256, round, seed, metrics, dataset, model), formats, files, compression ...
    trusted    whether it is signed by the public key that the caller gave
    """

    folder: Path
    id: str
    manifest: Mapping[str, Any]
    trusted: bool

    @property
    def signature(self) -> Signature:
        """What goes into the model and comes out."""
        return Signature.from_dict(self._json(INPUTS))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """From a raw row to what goes in, in numbers; the model itself does all of it but the scale."""
        return self._json(PREPROCESSING)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each output, or nothing where outputs have none."""
        return tuple(self._json(LABELS)["labels"])

    @property
    def signed_by(self) -> str | None:
        """The public key of whoever signed it, 64 hexadecimal digits; None where nobody did."""
        return self.manifest["signed_by"]  # type: ignore[no-any-return]

    def path(self, name: str) -> Path:
        """The file of a format by its name at ``fl export``. Raises BadInput if the bundle has none."""
        formats = self.manifest["formats"]
        if name not in formats:
            raise BadInput(key="--format", got=name, allowed=f"what the bundle holds: {', '.join(formats)}")
        return self.folder / str(formats[name]["path"])

    def parameters(self) -> Parameters:
        """The named arrays, in no particular order. Raises CorruptFile unless they are those of the version."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.folder / WEIGHTS
        try:
            parameters = dict(load(path.read_bytes()))
        except (SafetensorError, ValueError, KeyError) as error:
            raise CorruptFile(path=str(path), why=f"not a readable safetensors file: {error}") from error
        if sha256(parameters) != self.manifest["version"]["model_sha256"]:
            raise CorruptFile(path=str(path), why="its arrays are not those of the version that the manifest names")
        return parameters

    def module(self) -> nn.Module:
        """The model, built and filled, in evaluation mode.

        Building calls the function that the manifest names. That is one of ours, or the caller trusts the signer;
        otherwise it is BadInput, and a format that holds its computation (onnx) can be read instead.
        """
        from fl.models.arrays import load_parameters
        from fl.models.build import build_model

        version = self.manifest["version"]
        target = str(version["model"]["target"])
        if not self.trusted and not _OWN_MODEL.fullmatch(target):
            allowed = "a model of fl.models, or --public-key of whoever signed the bundle, to run the signer's own code"
            raise BadInput(key="BUNDLE", got=f"{self.folder}, whose model is {target}", allowed=allowed)
        module = build_model(
            target=target,
            arguments=version["model"]["arguments"],
            signature=self.signature,
            seed=int(version["seed"] or 0),
        )
        load_parameters(module, self.parameters())
        return module.eval()

    def _json(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name)


def write_bundle(
    output: Path, *, files: Mapping[str, bytes], about: Mapping[str, Any], key: Ed25519PrivateKey | None = None
) -> Bundle:
    """Write ``files`` (relative path -> content) as a bundle below ``output``; the one that is there already will do.

    about   JSON values for the manifest: at least "version" and "formats". The same values, the same bytes
    key     signs the manifest

    Raises BadInput before anything is written if a file that every bundle has is missing, or one would run code when it
    is read; StorageFailed.
    """
    if missing := [name for name in NEEDED if name not in files]:
        raise BadInput(key="bundle", got=f"no {missing[0]}", allowed=f"at least {', '.join(NEEDED)}")
    writable_folder(output, key="--output")
    with tempfile.TemporaryDirectory(dir=output, prefix=".bundle.") as beside:
        draft = Path(beside) / "draft"
        for name, content in sorted(files.items()):
            with storing(draft / name, site="bundle"):
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(draft / name, content, site="bundle")
        known = {name: {"sha256": sha256_file(draft / name), "size": len(content)} for name, content in files.items()}
        manifest = {
            **about,
            "kind": KIND,
            "schema": SCHEMA,
            FILES: known,
            "signed_by": public_half(key) if key else None,
        }
        write_json(draft / MANIFEST, manifest, site="bundle")
        if key:
            write_bytes(draft / SIGNED, key.sign((draft / MANIFEST).read_bytes()), site="bundle")
        try:
            made = open_bundle(draft)
        except CorruptFile as error:
            raise BadInput(key="bundle", got=str(error), allowed="files that only hold numbers and text") from error
        place = output / made.id
        _put(draft, place)
    return Bundle(place, made.id, made.manifest, made.trusted)


def open_bundle(folder: Path, *, public_key: Path | None = None) -> Bundle:
    """The bundle in ``folder``, every file of it verified.

    public_key   a PEM file: then the bundle has to be signed by that key. Without it a signature is checked against the
                 key that the manifest names, which tells damage, but not who signed

    Raises BadInput where no bundle is, or one of a later release; CorruptFile, naming the file, for whatever is added,
    missing, altered, not signed as it should be, or would run code or open other files when it is read.
    """
    wanted = read_public_key(public_key) if public_key else None
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise BadInput(key="BUNDLE", got=str(folder), allowed=f"the folder of a bundle: one with a {MANIFEST}")
    manifest = read_json(path)
    _check_kind(manifest, path)
    found = sha256_file(path)
    if _ID.fullmatch(folder.name) and folder.name != found:
        raise CorruptFile(path=str(path), why=f"its hash is {found[:12]}..., another than the name of the bundle")
    _check_files(folder, manifest)
    _check_signature(folder, manifest, wanted)
    for name in manifest[FILES]:
        refuse_objectionable(folder / name)
    return Bundle(folder, found, manifest, wanted is not None)


def _check_kind(manifest: Mapping[str, Any], path: Path) -> None:
    if manifest.get("kind") != KIND:
        raise BadInput(key="BUNDLE", got=str(path), allowed=f"the manifest of a {KIND}")
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise CorruptFile(path=str(path), why=f"its schema is {schema!r}")
    if schema > SCHEMA:
        got = f"{path.parent}, whose schema is {schema}: a later release made it"
        raise BadInput(key="BUNDLE", got=got, allowed=f"a schema up to {SCHEMA}, or a newer release of Meadow")
    files, signer = manifest.get(FILES), manifest.get("signed_by")
    whole = isinstance(files, dict) and all(
        isinstance(f, dict) and {"sha256", "size"} <= f.keys() for f in files.values()
    )
    if not whole or not isinstance(signer, str | None) or not all(isinstance(manifest.get(k), dict) for k in SAYS):
        raise CorruptFile(path=str(path), why=f"not a manifest, which has at least {', '.join((*SAYS, FILES))}")


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    known = {**manifest[FILES], MANIFEST: None}
    if manifest["signed_by"] is not None:
        known[SIGNED] = None
    there = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_symlink() or not p.is_dir()}
    for name, path in there.items():
        if name not in known:
            raise CorruptFile(path=str(path), why="no file of the bundle: it was added, or renamed")
        if path.is_symlink() or not path.is_file():
            raise CorruptFile(path=str(path), why="a link or a device, where a bundle has files")
    for name in (*NEEDED, *known):
        if name not in there:
            raise CorruptFile(path=str(folder / name), why="the file is missing")
    for name, facts in manifest[FILES].items():
        if there[name].stat().st_size != facts["size"] or sha256_file(there[name]) != facts["sha256"]:
            raise CorruptFile(path=str(there[name]), why="its bytes are not those that were packaged")


def _check_signature(folder: Path, manifest: Mapping[str, Any], wanted: str | None) -> None:
    path, signer = folder / SIGNED, manifest["signed_by"]
    if signer is None:
        if wanted is not None:
            raise CorruptFile(path=str(path), why="nobody signed the bundle, and a signature is asked for")
        return
    if wanted not in (None, signer):
        raise CorruptFile(path=str(path), why=f"signed by {signer[:12]}..., another key than the one that is asked for")
    if not verifies(signer, path.read_bytes(), (folder / MANIFEST).read_bytes()):
        raise CorruptFile(path=str(path), why="not the signature of this manifest")


def _put(draft: Path, place: Path) -> None:
    """Let ``draft`` stand at ``place``, unless the same stands there and is whole."""
    if place.exists():
        try:
            open_bundle(place)
        except (CorruptFile, BadInput):
            shutil.rmtree(place)  # damaged: its name says what it should have been, and that is here
        else:
            return
    with storing(place, site="bundle"):
        draft.rename(place)
        sync_folder(place.parent)
