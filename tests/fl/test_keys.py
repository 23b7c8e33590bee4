"""Ed25519 keys in PEM files: what is none is told by its file."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fl.errors import BadInput
from fl.keys import public_half, read_private_key, read_public_key, verifies


def write_pair(folder, key, *, private="key.pem", public="public.pem"):
    (folder / private).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / public).write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_both_halves_of_a_key(tmp_path):
    write_pair(tmp_path, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    key, public = read_private_key(tmp_path / "key.pem"), read_public_key(tmp_path / "public.pem")
    assert public == public_half(key) and len(public) == 64
    signature = key.sign(b"text")
    assert verifies(public, signature, b"text")
    assert not verifies(public, signature, b"test") and not verifies(public, b"", b"text")
    assert not verifies("00" * 31, signature, b"text") and not verifies("no key", signature, b"text")


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_keys_that_openssl_makes(tmp_path):
    for command in ("genpkey -algorithm ed25519 -out key.pem", "pkey -in key.pem -pubout -out public.pem"):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert read_public_key(tmp_path / "public.pem") == public_half(read_private_key(tmp_path / "key.pem"))


@pytest.mark.parametrize("what", ["absent", "text", "other", "swapped"])
def test_what_is_no_key(tmp_path, what):
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    if what == "text":
        private.write_text("no key")
        public.write_text("no key")
    elif what == "other":
        write_pair(tmp_path, generate_private_key(65537, 2048))
    elif what == "swapped":
        write_pair(tmp_path, Ed25519PrivateKey.from_private_bytes(bytes(32)), private="public.pem", public="key.pem")
    with pytest.raises(BadInput, match=r"--key: got .*key\.pem.*allowed: a PEM file with an Ed25519 private key"):
        read_private_key(private)
    with pytest.raises(BadInput, match=r"--public-key: got .*public\.pem.*allowed: a PEM file with an Ed25519 public"):
        read_public_key(public)
