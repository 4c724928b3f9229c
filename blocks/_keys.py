"""Key material: where its text is, what it may be, and which keys a token is checked with.

    file | variable | text ──► private_key() ──► sign
    files | variable | text | JWKS ──► Known, Known, … ──► KeySet.opened(token) ──► claims

The texts are read at every use, so that a rotated key counts from the next signature on; each text
is parsed once. Nothing here imports Prefect: the listener starts without it.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from blocks.errors import KeyUnusable, NotVerified

Algorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]
_THUMB = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
LEAST_RSA = 2048  # bits
LEAST_SECRET = 32  # bytes: RFC 7518 §3.2
MOST_HEADER = 4096  # characters of a token's header that are looked at
_OPTIONS: Any = {"enforce_minimum_key_length": True}
_JWT, _JWS = jwt.PyJWT(options=_OPTIONS), jwt.PyJWS(options=_OPTIONS)
_PUBLIC = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)
_Made = TypeVar("_Made")


class Known(NamedTuple):
    """One key that checks; the algorithm is the key's own, whatever a token says."""

    algorithm: str
    key: Any
    kid: str | None = None


def text_of(path: str | None, variable: str | None, text: str | None) -> str:
    """The text of a key from the one source given; raises KeyUnusable, never quoting it."""
    if path is not None:
        try:
            return Path(path).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise KeyUnusable(f"the key file {path} cannot be read: {reason}") from None
    if variable is not None:
        if not (held := os.environ.get(variable)):
            raise KeyUnusable(f"the environment variable {variable}, meant to hold a key, is unset")
        return held
    return str(text)


def place(path: str | None, variable: str | None) -> str:
    """What an error calls the source of a key."""
    return path or (f"${variable}" if variable else "the block")


def private_key(text: str, algorithm: str, where: str) -> Any:
    """The key in `text` that signs; raises KeyUnusable: broken, weak or of another kind."""
    return _parsed(_private, text, algorithm, f"the signing key in {where} is no private key")


def public_keys(text: str, algorithm: str, where: str) -> tuple[Known, ...]:
    """The keys in `text` that check: every PEM there is, or the one secret of HS256."""
    return _parsed(_public, text, algorithm, f"{where} holds no public key as PEM")


def fits(key: Any, algorithm: str, *, private: bool = False) -> bool:
    """Whether a key is of the kind and strength that `algorithm` takes."""
    if algorithm == "HS256":
        return isinstance(key, bytes) and len(key) >= LEAST_SECRET
    if algorithm == "RS256":
        kind: Any = rsa.RSAPrivateKey if private else rsa.RSAPublicKey
        return isinstance(key, kind) and key.key_size >= LEAST_RSA
    if algorithm == "ES256":
        kind = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
        return isinstance(key, kind) and isinstance(key.curve, ec.SECP256R1)
    kind = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    return isinstance(key, kind)


def public_members(algorithm: str, key: Any) -> dict[str, Any]:
    """What RFC 7638 has of a public key as JWK, and all that there is to it."""
    members: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {name: members[name] for name in _THUMB[members["kty"]]}


def thumbprint(algorithm: str, key: Any) -> str:
    """The name of a public key that has none (RFC 7638); never asked for a secret's."""
    members = public_members(algorithm, key)
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def key_id(text: str, algorithm: str, where: str) -> str | None:
    """The thumbprint of the private key in `text`; None for HS256, whose key is secret."""
    return _thumbprint(text, algorithm, where) if algorithm != "HS256" else None


@lru_cache(maxsize=32)
def _thumbprint(text: str, algorithm: str, where: str) -> str:
    return thumbprint(algorithm, private_key(text, algorithm, where).public_key())


def strict_json(text: bytes | str) -> Any:
    """JSON as RFC 8259 has it; raises ValueError for a name given twice, NaN, deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(frozen=True)
class KeySet:
    """Keys of which any may have signed, from one source: files, a variable, a text or a JWKS."""

    algorithm: Algorithm = "RS256"
    paths: tuple[str, ...] = ()
    variable: str | None = None
    text: str | None = None
    jwks: str | None = None

    def known(self, kid: str | None = None) -> tuple[Known, ...]:
        """All keys there are now; an unknown `kid` has a JWKS of the network fetched again."""
        if self.jwks is not None:
            from blocks._jwks import published

            return published(self.jwks, kid)
        if self.paths:
            return tuple(
                known
                for path in self.paths
                for known in public_keys(text_of(path, None, None), self.algorithm, path)
            )
        where = place(None, self.variable)
        return public_keys(text_of(None, self.variable, self.text), self.algorithm, where)

    @property
    def remote(self) -> bool:
        """Whether a check may have to wait for the network."""
        return self.jwks is not None and "://" in self.jwks

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of `token`; raises NotVerified unless one of these keys signed exactly them.

        Times are checked where the token has them, and nothing is asked for.
        """
        return self._first(token, lambda *by: _JWT.decode(token, *by))

    def opened(self, token: str) -> tuple[dict[str, Any], bytes]:
        """The header and the bytes that one of these keys signed, unread; raises NotVerified."""
        whole = self._first(token, lambda *by: _JWS.decode_complete(token, *by))
        return whole["header"], whole["payload"]

    def _first(self, token: str, decode: Callable[[str, list[str]], _Made]) -> _Made:
        why = "no key of that kid is known"
        for known in self._candidates(token):
            try:
                return decode(known.key, [known.algorithm])
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                why = str(error) or type(error).__name__
        raise NotVerified(f"signature refused: {why}")

    def _candidates(self, token: str) -> list[Known]:
        """A kid looks up, no more: keys that have none are tried in turn."""
        here = () if self.remote else self.known()  # a broken key is said whatever the token is
        kid = _header(token).get("kid")
        if kid is not None and not isinstance(kid, str):
            raise NotVerified("signature refused: the kid is no text")
        known = here or self.known(kid)
        named = [one for one in known if one.kid == kid]
        return named or [one for one in known if None in (one.kid, kid) or _is_print(one, kid)]


def _is_print(known: Known, kid: str | None) -> bool:
    """Whether a token calls a key by its thumbprint, which the document calls otherwise."""
    return known.algorithm != "HS256" and thumbprint(known.algorithm, known.key) == kid


def _header(token: str) -> dict[str, Any]:
    """What a token says of itself, unverified."""
    first = token.partition(".")[0]
    try:
        if len(first) > MOST_HEADER:
            raise ValueError("it is too long")
        header = strict_json(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except ValueError as error:
        raise NotVerified(f"signature refused: the token's header is unreadable: {error}") from None
    if not isinstance(header, dict):
        raise NotVerified("signature refused: the token's header is no object")
    return header


def _parsed(parse: Callable[[str, str], _Made], text: str, algorithm: str, wrong: str) -> _Made:
    try:
        return parse(text, algorithm)
    except _Weak as weak:
        raise KeyUnusable(f"{wrong} for {algorithm}: {weak}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # Only the kind of the error: its text may quote the key.
        raise KeyUnusable(f"{wrong} for {algorithm} ({type(error).__name__})") from None


class _Weak(Exception):
    """Why a key that could be read may not be used; quotes nothing of it."""


@lru_cache(maxsize=32)
def _private(text: str, algorithm: str) -> Any:
    if algorithm == "HS256":
        return _secret(text)
    return _fitting(load_pem_private_key(text.encode(), password=None), algorithm, private=True)


@lru_cache(maxsize=32)
def _public(text: str, algorithm: str) -> tuple[Known, ...]:
    if algorithm == "HS256":
        return (Known(algorithm, _secret(text)),)
    keys = [load_pem_public_key(pem.encode()) for pem in _PUBLIC.findall(text)]
    if not keys:
        raise ValueError("no PEM")
    return tuple(Known(algorithm, _fitting(key, algorithm)) for key in keys)


def _fitting(key: Any, algorithm: str, *, private: bool = False) -> Any:
    if not fits(key, algorithm, private=private):
        raise _Weak("it is of another kind, or too short")
    return key


def _secret(text: str) -> bytes:
    """The bytes of a shared secret; `whsec_` and base64 is how Standard Webhooks writes one."""
    text = text.strip()
    if "-----BEGIN" in text:
        raise _Weak("it is PEM, and no secret")
    if text.startswith("whsec_"):
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    else:
        secret = text.encode()
    if len(secret) < LEAST_SECRET:
        raise _Weak(f"a secret needs at least {LEAST_SECRET} bytes")
    return secret


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
