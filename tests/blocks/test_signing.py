"""Keys sign and check from any source; what is wrong with one is said, and never what is in it."""

import base64
import traceback
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.warnings import InsecureKeyLengthWarning

from blocks import SigningKey, VerifyKey
from blocks.errors import ConfigError, KeyUnusable, NotVerified

CLAIMS = {"dag_id": "flights", "progress": 40, "nested": {"naïve": [None, 1.5]}}
ALGORITHMS = ["RS256", "ES256", "EdDSA"]
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


def make(algorithm: str) -> tuple[str, str]:
    """A new private key and its public one."""
    key: Any = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "short": lambda: rsa.generate_private_key(65537, 1024),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    private = key.private_bytes(PEM, PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    return {kind: make(kind) for kind in (*ALGORITHMS, "P-384", "short")}


def source(kind: str, pem: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What to give a key block so that it finds `pem` in a file, a variable or itself."""
    if kind == "path":
        (folder / "key.pem").write_text(pem)
        return {"path": str(folder / "key.pem")}
    if kind == "variable":
        monkeypatch.setenv("MY_KEY", pem)
        return {"variable": "MY_KEY"}
    return {"pem": pem}


def unusable(key: SigningKey | VerifyKey, *secrets: str) -> str:
    """The text of the KeyUnusable that `key` raises, sure to hold nothing of `secrets`."""
    with pytest.raises(KeyUnusable) as caught:
        key.sign(CLAIMS) if isinstance(key, SigningKey) else key.verify("a.b.c")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    inner = [line for secret in secrets for line in secret.splitlines() if "-----" not in line]
    assert [line for line in inner if line in shown] == []
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["path", "variable", "pem"])
def test_what_a_key_signs_its_public_key_reads(algorithm, kind, keys, tmp_path, monkeypatch):
    private, public = keys[algorithm]
    signing = SigningKey(algorithm=algorithm, **source(kind, private, tmp_path, monkeypatch))
    assert VerifyKey(algorithm=algorithm, pem=public).verify(signing.sign(CLAIMS)) == CLAIMS


@pytest.mark.parametrize("kind", ["path", "pem"])
def test_a_verify_key_is_read_from_a_file_or_from_the_block(kind, keys, tmp_path, monkeypatch):
    private, public = keys["RS256"]
    token = SigningKey(pem=private).sign(CLAIMS)
    assert VerifyKey(**source(kind, public, tmp_path, monkeypatch)).verify(token) == CLAIMS


@pytest.mark.parametrize(
    "sources",
    [
        {},
        {"path": "/a", "variable": "A"},
        {"path": "/a", "pem": "x"},
        {"variable": "A", "pem": "x"},
        {"path": "/a", "variable": "A", "pem": "x"},
    ],
)
def test_a_signing_key_has_exactly_one_source(sources):
    with pytest.raises(ConfigError, match="exactly one of path, variable or pem"):
        SigningKey(**sources)


@pytest.mark.parametrize("sources", [{}, {"path": "/a", "pem": "x"}])
def test_a_verify_key_has_exactly_one_source(sources):
    with pytest.raises(ConfigError, match="exactly one of path or pem"):
        VerifyKey(**sources)


@pytest.mark.parametrize("kind", [SigningKey, VerifyKey])
def test_a_missing_file_is_named(kind, tmp_path):
    path = str(tmp_path / "none.pem")
    assert unusable(kind(path=path)).endswith(f"{path} cannot be read: No such file or directory")


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    assert "MY_KEY" in unusable(SigningKey(variable="MY_KEY"))


@pytest.mark.parametrize("kind", [SigningKey, VerifyKey])
@pytest.mark.parametrize("raw", [b"\xff\xfe\x00secret", b""], ids=["no text", "empty"])
def test_a_file_that_holds_no_key_is_named(kind, raw, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(raw)
    assert str(path) in unusable(kind(path=str(path)), "secret")


def broken(pem: str) -> dict[str, str]:
    """Texts that look like the key `pem`, and are none."""
    first, *inner, last = pem.splitlines()
    cut = "\n".join([first, *inner[:-2], last])
    # A kind of key nobody knows: the object id of Ed25519, 1.3.101.112, made 1.3.101.1.
    odd = base64.b64decode("".join(inner)).replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x01")
    unknown = "\n".join([first, base64.b64encode(odd).decode(), last])
    return {"words": "SECRETSECRET", "cut": cut, "bare": "\n".join(inner), "unknown": unknown}


@pytest.mark.parametrize("how", ["words", "cut", "bare"])
@pytest.mark.parametrize("kind", ["path", "variable", "pem"])
def test_a_broken_private_key_is_unusable_and_never_shown(how, kind, keys, tmp_path, monkeypatch):
    text = broken(keys["RS256"][0])[how]
    said = unusable(SigningKey(**source(kind, text, tmp_path, monkeypatch)), text)
    named = {"path": str(tmp_path / "key.pem"), "variable": "$MY_KEY", "pem": "the block"}
    assert named[kind] in said


@pytest.mark.parametrize("how", ["words", "cut", "bare"])
def test_a_broken_public_key_is_unusable(how, keys):
    unusable(VerifyKey(pem=broken(keys["RS256"][1])[how]))


def test_a_key_of_a_kind_that_nobody_knows_is_unusable(keys):
    private, public = keys["EdDSA"]
    unusable(SigningKey(algorithm="EdDSA", pem=broken(private)["unknown"]), private)
    unusable(VerifyKey(algorithm="EdDSA", pem=broken(public)["unknown"]))


def test_an_encrypted_private_key_is_unusable(keys):
    key = serialization.load_pem_private_key(keys["RS256"][0].encode(), None)
    locked = key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"hunter2"))
    unusable(SigningKey(pem=locked.decode()), locked.decode(), "hunter2")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_public_key_given_as_a_private_one_is_unusable_and_the_other_way_round(algorithm, keys):
    private, public = keys[algorithm]
    unusable(SigningKey(algorithm=algorithm, pem=public), public)
    unusable(VerifyKey(algorithm=algorithm, pem=private), private)


OTHERS = [
    ("RS256", "ES256"),
    ("RS256", "EdDSA"),
    ("ES256", "RS256"),
    ("ES256", "EdDSA"),
    ("ES256", "P-384"),
    ("EdDSA", "RS256"),
    ("EdDSA", "ES256"),
]


@pytest.mark.parametrize(("algorithm", "kind"), OTHERS)
def test_a_private_key_of_another_kind_than_the_algorithm_is_unusable(algorithm, kind, keys):
    private = keys[kind][0]
    assert algorithm in unusable(SigningKey(algorithm=algorithm, pem=private), private)


@pytest.mark.parametrize(("algorithm", "kind"), OTHERS)
def test_a_public_key_of_another_kind_than_the_algorithm_is_unusable(algorithm, kind, keys):
    token = SigningKey(algorithm=algorithm, pem=keys[algorithm][0]).sign(CLAIMS)
    with pytest.raises(KeyUnusable, match=algorithm):
        VerifyKey(algorithm=algorithm, pem=keys[kind][1]).verify(token)


def test_a_key_too_short_for_any_verify_key_does_not_sign(keys):
    private, public = keys["short"]
    with pytest.warns(InsecureKeyLengthWarning):
        token = jwt.encode(CLAIMS, private, algorithm="RS256")
    with pytest.raises((KeyUnusable, NotVerified)):
        VerifyKey(pem=public).verify(token)
    unusable(SigningKey(pem=private), private)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_token_has_no_say_in_the_algorithm(algorithm, keys):
    token = SigningKey(algorithm=algorithm, pem=keys[algorithm][0]).sign(CLAIMS)
    for other in {*ALGORITHMS} - {algorithm}:
        with pytest.raises(NotVerified):
            VerifyKey(algorithm=other, pem=keys[other][1]).verify(token)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda key: repr(key.model_dump()),
        lambda key: repr(key.model_dump(mode="json")),
        lambda key: key.model_dump_json(),
    ],
    ids=["repr", "str", "model_dump", "model_dump as JSON", "model_dump_json"],
)
def test_a_signing_key_never_shows_its_pem(show, keys):
    private = keys["RS256"][0]
    shown = show(SigningKey(pem=private))
    assert "RS256" in shown
    assert [line for line in private.splitlines() if line in shown] == []


def test_a_replaced_key_file_counts_from_the_next_use_on(keys, tmp_path):
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    signing, verifying = SigningKey(path=str(private)), VerifyKey(path=str(public))
    tokens = []
    for pair in (keys["RS256"], make("RS256")):
        private.write_text(pair[0])
        public.write_text(pair[1])
        tokens.append(signing.sign(CLAIMS))
        assert verifying.verify(tokens[-1]) == CLAIMS
    with pytest.raises(NotVerified):
        verifying.verify(tokens[0])


def test_a_replaced_key_variable_counts_from_the_next_use_on(keys, monkeypatch):
    signing = SigningKey(variable="MY_KEY")
    for pair in (keys["RS256"], make("RS256")):
        monkeypatch.setenv("MY_KEY", pair[0])
        assert VerifyKey(pem=pair[1]).verify(signing.sign(CLAIMS)) == CLAIMS
