"""`penstock keys jwks`: the document it prints checks what the keys sign, and hides the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from blocks import SigningKey, VerifyKey
from deployments.cli import main

MAKE: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """For each algorithm a private key, and beside it in *.pub its public one."""
    made = {}
    for algorithm, make in MAKE.items():
        key, made[algorithm] = make(), tmp_path / algorithm
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        made[algorithm].write_bytes(private)
        made[algorithm].with_suffix(".pub").write_bytes(public)
    return made


def test_private_and_public_files_make_the_same_document(files, capsys):
    assert main(["keys", "jwks", *map(str, files.values())]) == 0
    first = capsys.readouterr().out
    public = [str(file.with_suffix(".pub")) for file in files.values()]
    assert main(["keys", "jwks", *public]) == 0
    assert capsys.readouterr().out == first


def test_the_document_checks_what_the_keys_sign_under_their_names(files, tmp_path, capsys):
    words = [f"{file}={algorithm} key" for algorithm, file in files.items()]
    assert main(["keys", "jwks", *words]) == 0
    (tmp_path / "jwks.json").write_text(capsys.readouterr().out)
    verifying = VerifyKey(jwks=str(tmp_path / "jwks.json"))
    for algorithm, file in files.items():
        signing = SigningKey(algorithm=algorithm, path=str(file), key_id=f"{algorithm} key")
        assert verifying.verify(signing.sign({"run_id": "r"})) == {"run_id": "r"}
    kids = [key["kid"] for key in json.loads((tmp_path / "jwks.json").read_text())["keys"]]
    assert kids == ["RS256 key", "ES256 key", "EdDSA key"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["none.pem"], "none.pem cannot be read"),
        (["none.pem=kid"], "none.pem cannot be read"),
        (["notes"], "notes holds no key"),
        (["RS256=a", "ES256=a"], "give each its own =KID"),
    ],
)
def test_what_cannot_be_published_is_said(words, why, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("no key")
    assert main(["keys", "jwks", *words]) == 2
    assert why in capsys.readouterr().err
