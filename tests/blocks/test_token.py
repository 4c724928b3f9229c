"""The thin token: any library reads it, and what was tampered with is refused."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from standardwebhooks import webhooks

from blocks import SigningKey
from blocks._keys import KeySet
from blocks._token import LEEWAY, LIFETIME, signed_headers, verify_headers
from blocks.errors import NotVerified

NOW = 1_763_700_000.0
BODY = '{"type": "run", "name": "naïve"}'.encode()
SECRET = "a shared secret of at least 32 bytes"
MAKE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
ALGORITHMS = [*MAKE, "HS256"]


def pair(algorithm: str, key_id: str | None = None) -> tuple[SigningKey, KeySet]:
    """A new key, and what checks it."""
    if algorithm == "HS256":
        return SigningKey(algorithm=algorithm, pem=SECRET), KeySet("HS256", text=SECRET)
    key = MAKE[algorithm]()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signing = SigningKey(algorithm=algorithm, pem=private, key_id=key_id)
    return signing, KeySet(algorithm, text=public.decode())  # type: ignore[arg-type]  # any of them


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[SigningKey, KeySet]]:
    return {algorithm: pair(algorithm, "2026-11") for algorithm in ALGORITHMS}


def headers(key: SigningKey, body: bytes = BODY, now: float = NOW, **more: Any) -> dict[str, str]:
    names = {"issuer": "penstock", "audience": "there", **more}
    return signed_headers(key, body, "7f/status", now=now, **names)


def check(keys: KeySet, made: dict[str, str], body: bytes = BODY, **more: Any) -> dict[str, Any]:
    return verify_headers(keys, made, body, **{"audience": "there", "now": NOW, **more})


def token_of(made: dict[str, str]) -> str:
    return made["webhook-signature"].split()[0].removeprefix("jwt,")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_signed_is_verified_with_exactly_the_claims_of_the_contract(algorithm, keys):
    signing, verifying = keys[algorithm]
    made = headers(signing)
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("7f/status", "1763700000")
    assert check(verifying, made) == {
        "iss": "penstock",
        "iat": int(NOW),
        "exp": int(NOW) + 300,
        "jti": "7f/status",
        "aud": "there",
        "sha256": hashlib.sha256(BODY).hexdigest(),
    }
    header = {"alg": algorithm, "typ": "JWT", "kid": "2026-11"}
    if algorithm == "HS256":
        del header["kid"]
    assert jwt.get_unverified_header(token_of(made)) == header


def test_the_clock_of_the_machine_counts_when_none_is_given(keys):
    signing, verifying = keys["ES256"]
    made = signed_headers(signing, BODY, "1", issuer="i", audience="a")
    assert verify_headers(verifying, made, BODY, audience="a")["jti"] == "1"


def test_header_names_are_matched_in_any_case(keys):
    signing, verifying = keys["ES256"]
    assert check(verifying, {name.title(): v for name, v in headers(signing).items()})


class Example:
    """The key of the reference libraries' test vector: too short for a SigningKey."""

    algorithm = "HS256"

    def sign(self, payload: Any, headers: Any = None) -> str:
        return "token"

    def signature(self, content: bytes) -> bytes:
        secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        return jwt.get_algorithm_by_name("HS256").sign(content, secret)


def test_a_shared_secret_signs_as_the_example_of_standard_webhooks_has_it():
    made = signed_headers(
        Example(),
        b'{"test": 2432232314}',
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        issuer="i",
        audience="a",
        now=1614265330,
    )
    wanted = "jwt,token v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert made["webhook-signature"] == wanted


@pytest.mark.parametrize("secret", [SECRET, "whsec_" + base64.b64encode(bytes(40)).decode()])
def test_a_library_of_standard_webhooks_verifies_it_unchanged(secret):
    signing = SigningKey(algorithm="HS256", pem=secret)
    made = signed_headers(signing, BODY, "7f/status", issuer="i", audience="a")
    key = secret if secret.startswith("whsec_") else secret.encode()
    assert webhooks.Webhook(key).verify(BODY, made) == json.loads(BODY)
    with pytest.raises(webhooks.WebhookVerificationError):
        webhooks.Webhook(key).verify(BODY + b" ", made)


def test_an_ed25519_key_signs_as_standard_webhooks_has_it(keys):
    signing, verifying = keys["EdDSA"]
    label, _, signature = headers(signing)["webhook-signature"].split()[1].partition(",")
    assert label == "v1a"
    (known,) = verifying.known()
    known.key.verify(base64.b64decode(signature), b"7f/status.1763700000." + BODY)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_keys_that_standard_webhooks_does_not_know_sign_the_token_alone(algorithm, keys):
    assert len(headers(keys[algorithm][0])["webhook-signature"].split()) == 1


def refused(keys: KeySet, made: dict[str, str], body: bytes = BODY, **more: Any) -> str:
    with pytest.raises(NotVerified) as caught:
        check(keys, made, body, **more)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_somebody_else_signed_is_refused(algorithm, keys):
    other = (
        SigningKey(algorithm="HS256", pem="x" * 32) if algorithm == "HS256" else pair(algorithm)[0]
    )
    assert "signature refused" in refused(keys[algorithm][1], headers(other))


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"run", b"ruN")])
def test_another_body_is_refused(body, keys):
    signing, verifying = keys["ES256"]
    assert "not the one that was signed" in refused(verifying, headers(signing), body)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"webhook-id": "8"}, "webhook-id is not the id"),
        ({"webhook-id": ""}, "webhook-id is not the id"),
        ({"webhook-timestamp": ""}, "no number"),
        ({"webhook-timestamp": "-1"}, "no number"),
        ({"webhook-timestamp": "1e9"}, "no number"),
        ({"webhook-timestamp": "9" * 5000}, "no number"),
        ({"webhook-timestamp": str(int(NOW) - 301)}, "from now"),
        ({"webhook-timestamp": str(int(NOW) + 301)}, "from now"),
        ({"webhook-timestamp": str(int(NOW) - LEEWAY - 1)}, "not when the token was made"),
        ({"webhook-signature": ""}, "holds no token"),
        ({"webhook-signature": "v1,AAAA"}, "holds no token"),
        ({"webhook-signature": "jwt," + "x" * 9000}, "no thin one"),
        ({"webhook-signature": "jwt,a.b.c"}, "signature refused"),
        ({"webhook-signature": "jwt,"}, "signature refused"),
    ],
)
def test_headers_that_do_not_fit_the_token_are_refused(change, why, keys):
    signing, verifying = keys["ES256"]
    assert why in refused(verifying, {**headers(signing), **change})


@pytest.mark.parametrize("gone", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_no_header_may_be_missing(gone, keys):
    signing, verifying = keys["ES256"]
    refused(verifying, {n: v for n, v in headers(signing).items() if n != gone})


def test_another_audience_is_refused_and_a_list_may_name_several(keys):
    signing, verifying = keys["ES256"]
    assert "another audience" in refused(verifying, headers(signing), audience="elsewhere")
    assert check(verifying, tampered(signing, aud=["elsewhere", "there"]))
    assert check(verifying, headers(signing), audience=None)


@pytest.mark.parametrize("away", [0, -LEEWAY, LIFETIME, LIFETIME + LEEWAY])
def test_a_token_counts_from_its_making_to_its_end_with_a_minute_for_clocks(away, keys):
    signing, verifying = keys["ES256"]
    assert check(verifying, headers(signing), now=NOW + away, tolerance=400)


@pytest.mark.parametrize(
    ("away", "why"), [(LIFETIME + LEEWAY + 1, "expired"), (-LEEWAY - 1, "of the future")]
)
def test_a_token_of_the_past_or_the_future_is_refused(away, why, keys):
    signing, verifying = keys["ES256"]
    assert why in refused(verifying, headers(signing), now=NOW + away, tolerance=400)


def tampered(signing: SigningKey, **claims: Any) -> dict[str, str]:
    """Headers whose token has other claims, None for none, and is signed all the same."""
    made = headers(signing)
    held = jwt.decode(token_of(made), options={"verify_signature": False})
    held = {name: v for name, v in {**held, **claims}.items() if v is not None}
    return {**made, "webhook-signature": f"jwt,{signing.sign(held)}"}


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": None}, "no time 'exp'"),
        ({"iat": None}, "no time 'iat'"),
        ({"exp": True}, "no time 'exp'"),
        ({"exp": "1e9"}, "no time 'exp'"),
        ({"exp": 10**400}, "no time 'exp'"),
        ({"exp": -1}, "no time 'exp'"),
        ({"exp": int(NOW) + 970 * 31_557_600}, "lifetime"),
        ({"exp": int(NOW) + 901}, "lifetime"),
        ({"exp": int(NOW)}, "lifetime"),
        ({"exp": int(NOW) - 10}, "lifetime"),
        ({"nbf": int(NOW) + 120}, "of the future"),
        ({"nbf": []}, "no time 'nbf'"),
        ({"iss": None}, "(iss)"),
        ({"aud": None}, "(aud)"),
        ({"aud": []}, "(aud)"),
        ({"aud": [7]}, "(aud)"),
        ({"aud": {"there": 1}}, "(aud)"),
        ({"jti": None}, "(jti)"),
        ({"jti": "other"}, "(jti)"),
        ({"sha256": None}, "(sha256)"),
        ({"sha256": "é" * 64}, "(sha256)"),
    ],
)
def test_a_claim_that_is_missing_or_wrong_is_refused(claims, why, keys):
    signing, verifying = keys["ES256"]
    assert check(verifying, tampered(signing))
    assert why in refused(verifying, tampered(signing, **claims))


@pytest.mark.parametrize("typ", ["at+jwt", "JWS", None, 7])
def test_another_typ_is_refused(typ, keys):
    signing, verifying = keys["ES256"]
    made = headers(signing)
    held = jwt.decode(token_of(made), options={"verify_signature": False})
    token = signing.sign(held, {"typ": typ})
    assert "typ" in refused(verifying, {**made, "webhook-signature": f"jwt,{token}"})


def raw(signing: SigningKey, header: str, claims: str) -> dict[str, str]:
    """Headers whose token is signed over any text."""
    parts = [base64.urlsafe_b64encode(text.encode()).rstrip(b"=") for text in (header, claims)]
    signature = base64.urlsafe_b64encode(signing.signature(b".".join(parts))).rstrip(b"=")
    token = b".".join((*parts, signature)).decode()
    return {**headers(signing), "webhook-signature": f"jwt,{token}"}


def test_a_name_given_twice_or_what_is_no_json_is_refused(keys):
    signing, verifying = keys["ES256"]
    header = '{"alg": "ES256", "typ": "JWT"}'
    claims = json.dumps(check(verifying, headers(signing)))
    assert check(verifying, raw(signing, header, claims))
    for other in (
        f'{{"aud": "elsewhere", {claims[1:]}',
        f'{claims[:-1]}, "x": {{"a": 1, "a": 1}}}}',
        f'{claims[:-1]}, "x": NaN}}',
        f"[{claims}]",
        "[" * 2000,
        "null",
    ):
        assert "claims" in refused(verifying, raw(signing, header, other))
    twice = '{"alg": "none", "alg": "ES256", "typ": "JWT"}'
    assert "given twice" in refused(verifying, raw(signing, twice, claims))


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256"])
def test_the_token_has_no_say_in_the_algorithm(alg, keys):
    # Signed with the public key's own text as the secret, or not at all.
    _, verifying = keys["RS256"]
    secret = SigningKey(algorithm="HS256", pem=SECRET)
    stolen = str(verifying.text).encode()
    claims = json.dumps(check(verifying, headers(keys["RS256"][0])))
    parts = [json.dumps({"alg": alg, "typ": "JWT"}).encode(), claims.encode()]
    content = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    hs256 = jwt.get_algorithm_by_name("HS256")
    signature = b"" if alg == "none" else hs256.sign(content, stolen)
    token = content.decode() + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    refused(verifying, {**headers(secret), "webhook-signature": f"jwt,{token}"})


def test_a_body_over_the_limit_is_refused_before_it_is_looked_at(keys):
    signing, verifying = keys["ES256"]
    assert check(verifying, headers(signing), max_body=len(BODY))
    assert "over the limit" in refused(verifying, headers(signing), max_body=len(BODY) - 1)


def test_in_a_rotation_one_good_token_in_the_list_is_enough(keys):
    signing, verifying = keys["ES256"]
    made, other = headers(signing), token_of(headers(pair("ES256")[0]))
    both = f"v1,AAAA jwt,{other} {made['webhook-signature']}"
    assert check(verifying, {**made, "webhook-signature": both})
    many = " ".join([f"jwt,{other}"] * 8 + [made["webhook-signature"]])
    refused(verifying, {**made, "webhook-signature": many})
