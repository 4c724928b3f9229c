"""Public keys as a JWKS: written from signing keys, read from a file, fetched, fetched again."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from blocks import SigningKey, VerifyKey, _jwks
from blocks.errors import ConfigError, KeyUnusable, NotVerified
from blocks.signing import jwks

CLAIMS = {"run_id": "r"}


def signing(algorithm: str = "ES256", key_id: str | None = None, bits: int = 2048) -> SigningKey:
    key: Any = {
        "RS256": lambda: rsa.generate_private_key(65537, bits),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return SigningKey(algorithm=algorithm, pem=pem.decode(), key_id=key_id)


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """An HTTP server that answers with `body` and `status`, and counts in `asked`."""
    mine = SimpleNamespace(body=b"", status=200, asked=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mine.asked += 1
            self.send_response(mine.status)
            self.end_headers()
            self.wfile.write(mine.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        mine.url = f"http://127.0.0.1:{http.server_port}/jwks.json"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield mine
        http.shutdown()
        thread.join()


@pytest.fixture
def clock(monkeypatch):
    """The time that the cache of fetched documents goes by; tests move it on."""
    mine = SimpleNamespace(now=1000.0)
    mine.monotonic = lambda: mine.now
    monkeypatch.setattr(_jwks, "time", mine)
    return mine


def test_a_document_of_all_kinds_of_keys_checks_what_each_signs(tmp_path):
    keys = [signing(name) for name in ("RS256", "ES256", "EdDSA")]
    (tmp_path / "keys.json").write_text(json.dumps(jwks(keys)))
    verifying = VerifyKey(jwks=str(tmp_path / "keys.json"))
    assert [verifying.verify(key.sign(CLAIMS)) for key in keys] == [CLAIMS] * 3
    with pytest.raises(NotVerified):
        verifying.verify(signing("EdDSA").sign(CLAIMS))


def test_a_document_holds_public_parts_alone_and_any_library_reads_it():
    keys = [signing("RS256", "a"), signing("ES256", "b"), signing("EdDSA")]
    document = jwks(keys)
    private = {"d", "p", "q", "dp", "dq", "qi", "k"}
    assert not private & {name for entry in document["keys"] for name in entry}
    assert [entry["kid"] for entry in document["keys"]][:2] == ["a", "b"]
    read = jwt.PyJWKSet.from_dict(document)
    assert jwt.decode(keys[0].sign(CLAIMS), read["a"]) == CLAIMS


def test_a_key_without_an_id_is_named_by_its_thumbprint():
    # The example of RFC 8037, appendix A.3.
    known = jwt.PyJWK(
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    ).key
    (entry,) = _jwks.document([_jwks.Known("EdDSA", known)])["keys"]
    assert entry["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_key_that_the_document_calls_otherwise_is_found_by_its_thumbprint(tmp_path):
    one, other = signing("EdDSA"), signing("EdDSA")
    document = jwks([one, other])
    for entry, name in zip(document["keys"], ("2026-11", "2026-12"), strict=True):
        entry["kid"] = name
    (tmp_path / "keys.json").write_text(json.dumps(document))
    verifying = VerifyKey(jwks=str(tmp_path / "keys.json"))
    assert verifying.verify(one.sign(CLAIMS)) == CLAIMS
    with pytest.raises(NotVerified):
        verifying.verify(signing("EdDSA").sign(CLAIMS))


def test_a_shared_secret_is_never_published():
    with pytest.raises(ConfigError, match="never published"):
        jwks([SigningKey(algorithm="HS256", pem="x" * 32)])


def test_the_algorithm_is_the_keys_own_and_the_kid_only_looks_up(tmp_path):
    one, two = signing("ES256", "one"), signing("EdDSA", "two")
    (tmp_path / "keys.json").write_text(json.dumps(jwks([one, two])))
    verifying = VerifyKey(jwks=str(tmp_path / "keys.json"))
    with pytest.raises(NotVerified):
        verifying.verify(one.sign(CLAIMS, {"kid": "two"}))
    with pytest.raises(NotVerified, match="no key of that kid"):
        verifying.verify(one.sign(CLAIMS, {"kid": "../../etc/passwd"}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"d": "AQAB"}, "holds a private key"),
        ({"kty": "oct", "k": "AQAB"}, "holds a private key"),
        ({"use": "enc"}, "holds no key"),
        ({"key_ops": ["sign"]}, "holds no key"),
        ({"alg": "HS256"}, "holds no key"),
        ({"crv": "P-384"}, "holds no key"),
        ({"x": "AAAA"}, "holds a broken key"),
        ({"kid": 7}, "holds no key"),
        ({"kty": None}, "holds no key"),
    ],
)
def test_an_entry_that_no_key_can_be_made_of_is_not_used(change, why, tmp_path):
    document = jwks([signing("ES256")])
    document["keys"][0].update(change)
    (tmp_path / "keys.json").write_text(json.dumps(document))
    with pytest.raises(KeyUnusable, match=why):
        VerifyKey(jwks=str(tmp_path / "keys.json")).verify(signing().sign(CLAIMS))


def test_a_weak_key_is_not_used(tmp_path):
    weak = rsa.generate_private_key(65537, 1024).public_key()
    document = _jwks.document([_jwks.Known("RS256", weak)])
    (tmp_path / "keys.json").write_text(json.dumps(document))
    with pytest.raises(KeyUnusable, match="holds no key"):
        VerifyKey(jwks=str(tmp_path / "keys.json")).verify(signing("RS256").sign(CLAIMS))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', "[" * 5000])
def test_what_is_no_document_is_unusable(text, tmp_path):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(KeyUnusable, match=r"keys\.json is no JWKS"):
        VerifyKey(jwks=str(tmp_path / "keys.json")).verify(signing().sign(CLAIMS))


@pytest.mark.parametrize("url", ["http://example.org/keys", "ftp://example.org/", "file:///etc/k"])
def test_a_document_is_fetched_by_https_alone(url):
    with pytest.raises(ConfigError, match="by https"):
        VerifyKey(jwks=url).verify(signing().sign(CLAIMS))


def test_a_fetched_document_is_kept_for_minutes_and_then_fetched_again(server, clock):
    key = signing(key_id="a")
    server.body = json.dumps(jwks([key])).encode()
    verifying = VerifyKey(jwks=server.url)
    for _ in range(3):
        assert verifying.verify(key.sign(CLAIMS)) == CLAIMS
    assert server.asked == 1
    clock.now += _jwks.FRESH + 1
    assert verifying.verify(key.sign(CLAIMS)) == CLAIMS
    assert server.asked == 2


def test_a_new_kid_has_the_document_fetched_again_so_that_keys_rotate(server, clock):
    old, new = signing(key_id="old"), signing(key_id="new")
    verifying = VerifyKey(jwks=server.url)
    server.body = json.dumps(jwks([old])).encode()
    assert verifying.verify(old.sign(CLAIMS)) == CLAIMS
    server.body = json.dumps(jwks([old, new])).encode()
    assert [verifying.verify(key.sign(CLAIMS)) for key in (new, old)] == [CLAIMS] * 2
    assert server.asked == 2


def test_unknown_kids_cannot_make_it_be_fetched_all_the_time(server, clock):
    server.body = json.dumps(jwks([signing(key_id="a")])).encode()
    verifying = VerifyKey(jwks=server.url)
    for n in range(50):
        with pytest.raises(NotVerified):
            verifying.verify(signing(key_id=f"made up {n}").sign(CLAIMS))
    assert server.asked == 2
    clock.now += _jwks.PACE + 1
    with pytest.raises(NotVerified):
        verifying.verify(signing(key_id="made up").sign(CLAIMS))
    assert server.asked == 3


def test_a_server_that_fails_leaves_the_keys_for_an_hour(server, clock):
    key = signing()
    server.body = json.dumps(jwks([key])).encode()
    verifying = VerifyKey(jwks=server.url)
    verifying.verify(key.sign(CLAIMS))
    server.status = 503
    clock.now += _jwks.STALE - 1
    assert verifying.verify(key.sign(CLAIMS)) == CLAIMS
    clock.now += _jwks.RETRY + 1
    with pytest.raises(KeyUnusable, match="it answered 503"):
        verifying.verify(key.sign(CLAIMS))
    server.status = 200
    clock.now += _jwks.RETRY + 1
    assert verifying.verify(key.sign(CLAIMS)) == CLAIMS


def test_no_server_and_a_document_without_end_are_named_without_secrets(server, clock):
    server.body = b"x" * (_jwks.MOST_BYTES + 1)
    url = server.url.replace("//", "//me:hunter2@") + "?token=hunter3"
    with pytest.raises(KeyUnusable, match="too large") as caught:
        VerifyKey(jwks=url).verify(signing().sign(CLAIMS))
    assert "hunter" not in str(caught.value)
    with pytest.raises(KeyUnusable, match="ConnectError"):
        VerifyKey(jwks="http://127.0.0.1:9/jwks.json").verify(signing().sign(CLAIMS))
