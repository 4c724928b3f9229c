"""The thin token: headers that prove who sent which bytes, to whom and when.

    body, id ──► signed_headers() ──► webhook-id, webhook-timestamp, webhook-signature
    headers, body ──► verify_headers() ──► claims, or NotVerified

`webhook-signature` is a list, as Standard Webhooks 1.0.0 has it: `jwt,` and a JWT that holds the
digest of the body, not the body; beside it what any library of that standard checks, `v1,` for a
shared secret and `v1a,` for an Ed25519 key. Everything here is pure but for the clock.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from blocks._keys import strict_json
from blocks.errors import NotVerified

LIFETIME = 300  # seconds from `iat` to `exp`
LEEWAY = 60  # seconds that two clocks may differ
MAX_BODY = 16 << 20
MOST_TOKEN = 8192  # characters: a thin token has less than a thousand
MOST_SIGNATURES = 8
_STANDARD = {"HS256": "v1", "EdDSA": "v1a"}


class Signs(Protocol):
    """What signed_headers asks of a key; `blocks.SigningKey` is one."""

    @property
    def algorithm(self) -> str: ...
    def sign(self, payload: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str: ...
    def signature(self, content: bytes) -> bytes: ...


class Opens(Protocol):
    """What verify_headers asks of a key; `blocks.VerifyKey` and its KeySet are two."""

    def opened(self, token: str) -> tuple[dict[str, Any], bytes]: ...


def signed_headers(
    key: Signs,
    body: bytes,
    message_id: str,
    *,
    issuer: str,
    audience: str,
    now: float | None = None,
) -> dict[str, str]:
    """The headers that sign exactly `body`: made anew for each attempt, the id stays.

    Raises KeyUnusable when the key cannot sign.
    """
    at = int(time.time() if now is None else now)
    claims = {
        "iss": issuer,
        "iat": at,
        "exp": at + LIFETIME,
        "jti": message_id,
        "aud": audience,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    signatures = [f"jwt,{key.sign(claims, {'typ': 'JWT'})}"]
    if label := _STANDARD.get(key.algorithm):
        content = b".".join((message_id.encode(), str(at).encode(), body))
        signatures.append(f"{label},{base64.b64encode(key.signature(content)).decode()}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
    }


def verify_headers(
    verify_key: Opens,
    headers: Mapping[str, str],
    body: bytes,
    *,
    audience: str | None,
    tolerance: float = 300,
    max_lifetime: float = 900,
    max_body: int = MAX_BODY,
    now: float | None = None,
) -> dict[str, Any]:
    """The claims of the token in `headers`, sure to be of exactly this body and for `audience`.

    Header names are matched in any case; `audience` None takes whichever is named. Raises
    NotVerified for all else, saying why, and KeyUnusable when the key itself cannot be used.
    """
    if len(body) > max_body:
        raise NotVerified(f"a body of {len(body)} bytes is over the limit of {max_body}")
    lower = {name.lower(): value for name, value in headers.items()}
    at = time.time() if now is None else now
    stamp = check_timestamp(lower.get("webhook-timestamp", ""), tolerance=tolerance, now=at)
    claims = _claims(verify_key, lower.get("webhook-signature", ""))
    _check_times(claims, max_lifetime, at)
    if abs(claims["iat"] - stamp) > LEEWAY:
        raise NotVerified("webhook-timestamp is not when the token was made")
    if not isinstance(claims.get("iss"), str) or not claims["iss"]:
        raise NotVerified("the token does not say who issued it (iss)")
    named = claims.get("aud")
    audiences = named if isinstance(named, list) else [named]
    if not named or not all(isinstance(one, str) for one in audiences):
        raise NotVerified("the token does not say whom it is for (aud)")
    if audience is not None and audience not in audiences:
        raise NotVerified("the token is for another audience")
    if not claims.get("jti") or claims["jti"] != lower.get("webhook-id"):
        raise NotVerified("webhook-id is not the id in the token (jti)")
    digest, told = hashlib.sha256(body).hexdigest(), claims.get("sha256")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), digest.encode()):
        raise NotVerified("the body is not the one that was signed (sha256)")
    return claims


def check_timestamp(stamp: str, *, tolerance: float = 300, now: float | None = None) -> int:
    """The seconds that `webhook-timestamp` gives; raises NotVerified when they are too far off."""
    at = time.time() if now is None else now
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        raise NotVerified("webhook-timestamp is no number of seconds")
    if abs(at - int(stamp)) > tolerance:
        raise NotVerified(f"webhook-timestamp is {int(stamp) - at:+.0f} s from now")
    return int(stamp)


def _claims(verify_key: Opens, signatures: str) -> dict[str, Any]:
    """What the first token that one of the keys signed says; several stand there in a rotation."""
    refused = NotVerified("webhook-signature holds no token (jwt,…)")
    for token in _tokens(signatures):
        try:
            header, signed = verify_key.opened(token)
        except NotVerified as error:
            refused = error
            continue
        if str(header.get("typ")).upper() != "JWT":
            raise NotVerified(f"the token's typ is {header.get('typ')!r:.40}, not 'JWT'")
        try:
            claims = strict_json(signed)
        except ValueError as error:
            raise NotVerified(f"the token's claims are no JSON: {error}") from None
        if not isinstance(claims, dict):
            raise NotVerified("the token's claims are no object")
        return claims
    raise refused


def _tokens(signatures: str) -> Iterable[str]:
    for signature in signatures.split()[:MOST_SIGNATURES]:
        label, _, token = signature.partition(",")
        if label == "jwt":
            if len(token) > MOST_TOKEN:
                raise NotVerified(f"a token of {len(token)} characters is no thin one")
            yield token


def _check_times(claims: Mapping[str, Any], max_lifetime: float, now: float) -> None:
    """`iat` and `exp` are there and now is between them, LEEWAY granted; so for `nbf`, if there."""
    for name in ("iat", "exp", *({"nbf"} & claims.keys())):
        value = claims.get(name)
        if not isinstance(value, int | float) or value is True or not 0 <= value < 1e12:
            raise NotVerified(f"the token has no time {name!r}")
    if now > claims["exp"] + LEEWAY:
        raise NotVerified(f"the token expired {now - claims['exp']:.0f} s ago")
    if max(claims["iat"], claims.get("nbf", 0)) > now + LEEWAY:
        raise NotVerified("the token is of the future (iat)")
    lifetime = claims["exp"] - claims["iat"]
    if not 0 < lifetime <= max_lifetime:
        raise NotVerified(f"a lifetime of {lifetime} s is not within {max_lifetime} s")
