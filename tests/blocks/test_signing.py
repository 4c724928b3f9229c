"""Keys sign and check from any source; what is wrong with one is said, and never what is in it."""

import base64
import hmac
import json
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
from blocks.signing import jwks

CLAIMS = {"dag_id": "flights", "progress": 40, "nested": {"naïve": [None, 1.5]}}
ALGORITHMS = ["RS256", "ES256", "EdDSA"]
SECRET = "a shared secret of at least 32 bytes"
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


def make(algorithm: str) -> tuple[str, str]:
    """A new private key and its public one; for HS256 the same secret twice."""
    if algorithm == "HS256":
        return SECRET, SECRET
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
    return {kind: make(kind) for kind in (*ALGORITHMS, "HS256", "P-384", "short")}


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


@pytest.mark.parametrize("kind", ["path", "variable", "pem"])
def test_a_verify_key_is_read_from_any_source(kind, keys, tmp_path, monkeypatch):
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


@pytest.mark.parametrize(
    "sources", [{}, {"path": "/a", "pem": "x"}, {"paths": ["/a"], "jwks": "/b"}]
)
def test_a_verify_key_has_exactly_one_source(sources):
    with pytest.raises(ConfigError, match="exactly one of path, paths, variable, pem or jwks"):
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


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "HS256"])
def test_a_key_is_parsed_once_and_read_at_every_use(algorithm, keys, tmp_path):
    path = tmp_path / "key"
    path.write_text(keys[algorithm][0] + "\n")
    signing = SigningKey(algorithm=algorithm, path=str(path))
    assert signing._key() is signing._key()
    path.unlink()
    assert str(path) in unusable(signing)


@pytest.mark.parametrize("kind", ["path", "variable"])
def test_a_shared_secret_signs_and_checks(kind, keys, tmp_path, monkeypatch):
    where = source(kind, SECRET + "\n", tmp_path, monkeypatch)
    token = SigningKey(algorithm="HS256", **where).sign(CLAIMS)
    assert VerifyKey(algorithm="HS256", **where).verify(token) == CLAIMS
    assert jwt.decode(token, SECRET, ["HS256"]) == CLAIMS


def test_a_secret_as_standard_webhooks_writes_it_is_its_bytes():
    raw = bytes(range(32))
    token = SigningKey(algorithm="HS256", pem="whsec_" + base64.b64encode(raw).decode()).sign(
        CLAIMS
    )
    assert jwt.decode(token, raw, ["HS256"]) == CLAIMS


@pytest.mark.parametrize("secret", ["too short for HS256", "whsec_" + "c2hvcnQ=", "whsec_?"])
def test_a_weak_or_broken_secret_is_unusable_and_never_shown(secret, tmp_path):
    assert "HS256" in unusable(SigningKey(algorithm="HS256", pem=secret), secret)
    (tmp_path / "secret").write_text(secret)
    unusable(VerifyKey(algorithm="HS256", path=str(tmp_path / "secret")), secret)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_public_key_is_no_shared_secret(kind, keys, tmp_path):
    (tmp_path / "key").write_text(keys[kind][1])
    said = unusable(VerifyKey(algorithm="HS256", path=str(tmp_path / "key")))
    assert "it is PEM, and no secret" in said


@pytest.mark.parametrize("source", [{"pem": SECRET}, {"jwks": "/keys.json"}])
def test_a_shared_secret_never_stands_in_a_verify_key(source):
    with pytest.raises(ConfigError, match="name its path or variable"):
        VerifyKey(algorithm="HS256", **source)


def test_a_key_id_is_told_in_the_header_and_other_headers_join_it(keys):
    private = keys["ES256"][0]
    named = SigningKey(algorithm="ES256", pem=private, key_id="2026-11")
    header = jwt.get_unverified_header(named.sign(CLAIMS, {"typ": "report+jwt"}))
    assert header == {"alg": "ES256", "kid": "2026-11", "typ": "report+jwt"}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_key_without_an_id_is_told_by_the_name_that_its_jwks_gives_it(keys, algorithm):
    key = SigningKey(algorithm=algorithm, pem=keys[algorithm][0])
    token = key.sign(CLAIMS)
    (published,) = jwks([key])["keys"]
    named = {"alg": algorithm, "kid": published["kid"], "typ": "JWT"}
    assert jwt.get_unverified_header(token) == named
    public = jwt.PyJWKSet.from_dict({"keys": [published]})[published["kid"]]
    assert jwt.decode(token, public, algorithms=[algorithm]) == CLAIMS
    assert jwt.decode(token, public.key, algorithms=[algorithm]) == CLAIMS  # as old listeners do


def test_nothing_in_a_token_is_made_of_a_shared_secret():
    plain = SigningKey(algorithm="HS256", pem=SECRET).sign(CLAIMS)
    assert jwt.get_unverified_header(plain) == {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize("together", [True, False], ids=["one file", "two files"])
def test_in_a_rotation_the_old_key_and_the_new_one_both_count(together, keys, tmp_path):
    old, new, other = keys["RS256"], make("RS256"), make("RS256")
    files = [tmp_path / "old.pem", tmp_path / "new.pem"]
    files[0].write_text(old[1] + new[1] if together else old[1])
    files[1].write_text(new[1])
    paths = [str(file) for file in files[: 1 if together else 2]]
    verifying = VerifyKey(paths=paths)
    for private, _ in (old, new):
        assert verifying.verify(SigningKey(pem=private, key_id="any").sign(CLAIMS)) == CLAIMS
    with pytest.raises(NotVerified):
        verifying.verify(SigningKey(pem=other[0]).sign(CLAIMS))


ROUTES: dict[str, dict[str, Any]] = {
    "status": {"state": "running", "dag_id": "d", "run_id": "r", "task_id": "t"},
    "progress": {"state": "failed", "dag_id": "d", "run_id": "r", "progress": 40, "error": "naïve"},
    "results": {"dag_id": "d", "run_id": "r", "results": {"tables": [1, None, {"a": 0.5}]}},
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "HS256"])
def test_a_key_an_algorithm_and_nothing_else_read_every_message(algorithm, route, keys):
    private, public = keys[algorithm]
    signing = SigningKey(algorithm=algorithm, pem=private, key_id="2026-11")
    assert jwt.decode(signing.sign(ROUTES[route]), public, [algorithm]) == ROUTES[route]


def forged(header: dict[str, Any], secret: bytes | None = None) -> str:
    """A token with any header, signed with HMAC or not at all."""
    parts = [json.dumps(part).encode() for part in (header, CLAIMS)]
    content = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(secret, content, "sha256") if secret else b""
    return f"{content.decode()}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def refused(key: VerifyKey, token: str) -> str:
    with pytest.raises(NotVerified) as caught:
        key.verify(token)
    with pytest.raises(NotVerified):
        key.opened(token)
    return str(caught.value)


@pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_without_a_signature_is_refused(algorithm, name, keys):
    refused(VerifyKey(algorithm=algorithm, pem=keys[algorithm][1]), forged({"alg": name}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_public_key_used_as_a_secret_forges_nothing(algorithm, keys):
    public = keys[algorithm][1]
    der = base64.b64decode("".join(public.splitlines()[1:-1]))
    for secret in (public.encode(), public.strip().encode(), der):
        for header in ({"alg": "HS256"}, {"alg": algorithm}):
            refused(VerifyKey(algorithm=algorithm, pem=public), forged(header, secret))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp2"], "exp2": 1},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "pad": "x" * 5000},
        ["HS256"],
        {},
    ],
    ids=["crit", "b64", "kid", "long", "list", "empty"],
)
def test_a_header_that_asks_for_more_than_a_key_is_refused(header, keys, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    verifying = VerifyKey(algorithm="HS256", variable="MY_KEY")
    assert verifying.verify(forged({"alg": "HS256"}, SECRET.encode())) == CLAIMS
    refused(verifying, forged(header, SECRET.encode()))


def test_a_key_that_the_token_brings_along_is_not_looked_at(keys):
    mine = make("ES256")
    jwk = jwks([SigningKey(algorithm="ES256", pem=mine[0])])["keys"][0]
    for header in (
        {"jwk": jwk},
        {"jku": "https://evil.example/"},
        {"x5u": "https://evil.example/"},
    ):
        token = SigningKey(algorithm="ES256", pem=mine[0]).sign(CLAIMS, header)
        refused(VerifyKey(algorithm="ES256", pem=keys["ES256"][1]), token)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "é.é.é", "[" * 5000, "e30.e30.", "x" * 100_000],
)
def test_what_is_no_token_is_refused(token, keys):
    refused(VerifyKey(pem=keys["RS256"][1]), token)


def test_endless_nesting_is_refused(keys):
    deep = base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("=")
    refused(VerifyKey(pem=keys["RS256"][1]), f"{deep}.e30.e30")
