"""Ed25519 keys in PEM files: who made a file, and that it is still the one.

openssl genpkey -algorithm ed25519 -out key.pem
openssl pkey -in key.pem -pubout -out public.pem
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fl.errors import BadInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as Ed25519PrivateKey

PRIVATE, PUBLIC = "--key", "--public-key"


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file that no password protects. Raises BadInput with key ``--key``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    allowed = "a PEM file with an Ed25519 private key: openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        key = load_pem_private_key(_read(path, PRIVATE, allowed), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(key=PRIVATE, got=str(path), allowed=allowed) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(key=PRIVATE, got=f"{path}, another kind of key", allowed=allowed)
    return key


def read_public_key(path: Path) -> str:
    """The key in a PEM file as 64 hexadecimal digits. Raises BadInput with key ``--public-key``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    allowed = "a PEM file with an Ed25519 public key: openssl pkey -in key.pem -pubout -out public.pem"
    try:
        key = load_pem_public_key(_read(path, PUBLIC, allowed))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(key=PUBLIC, got=str(path), allowed=allowed) from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(key=PUBLIC, got=f"{path}, another kind of key", allowed=allowed)
    return key.public_bytes_raw().hex()


def public_half(key: Ed25519PrivateKey) -> str:
    """What the signatures of ``key`` are verified with: 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def verifies(public_key: str, signature: bytes, content: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is that of ``content`` by the key of 64 hexadecimal digits."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: Path, key: str, allowed: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(key=key, got=f"{path} ({error.strerror})", allowed=allowed) from error
