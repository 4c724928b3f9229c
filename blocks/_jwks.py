"""Public keys as a JWKS document (RFC 7517): written for others, read from a file or from https."""

import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt

from blocks._keys import Known, fits, public_members, strict_json, text_of, thumbprint
from blocks.errors import ConfigError, KeyUnusable

if TYPE_CHECKING:
    import httpx

FRESH = 300.0  # seconds for which a fetched document counts
STALE = 3600.0  # and for which it still does when its server does not answer
RETRY = 5.0  # seconds between two fetches when its server does not answer
PACE = 30.0  # seconds between two fetches because of unknown kids
PATIENCE = 10.0  # seconds a fetch may take
MOST_BYTES = 256 << 10
MOST_KEYS = 64
_KINDS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_LOCAL = ("127.0.0.1", "::1", "localhost")


def document(keys: Iterable[Known]) -> dict[str, Any]:
    """The JWKS of the public `keys`; one without a kid gets its thumbprint (RFC 7638) as kid."""
    return {"keys": [_entry(known) for known in keys]}


def published(where: str, kid: str | None = None) -> tuple[Known, ...]:
    """The keys of the JWKS at `where`, a file or a URL.

    A document from the network is kept for FRESH seconds. A `kid` that it does not have makes it be
    fetched again, at most once in PACE seconds. Raises KeyUnusable when there is no usable one.
    """
    if "://" in where:
        return remote(where).keys(kid)
    return _parsed(text_of(where, None, None), where)


class Remote:
    """A JWKS document of the network, as it was when it was last fetched."""

    def __init__(self, url: str, client: "httpx.Client | None" = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            raise ConfigError(f"a JWKS is fetched by https, not from {parts.scheme}://…")
        self._url, self._client = url, client
        self._name = f"{parts.scheme}://{parts.hostname}{parts.path}"  # no user, no query
        self._lock = threading.Lock()
        self._keys: tuple[Known, ...] = ()
        self._fetched = self._tried = self._asked = float("-inf")
        self._why = ""

    def keys(self, kid: str | None = None) -> tuple[Known, ...]:
        """The keys; raises KeyUnusable when none could be had for STALE seconds."""
        if self._old() or self._lacks(kid):
            with self._lock:
                if self._old():  # nobody fetched it meanwhile
                    self._fetch()
                elif self._lacks(kid):
                    self._asked = time.monotonic()
                    self._fetch()
        if time.monotonic() - self._fetched > STALE:
            raise KeyUnusable(f"no keys could be had from {self._name}: {self._why}")
        return self._keys

    def _old(self) -> bool:
        now = time.monotonic()
        return now - self._fetched > FRESH and now - self._tried > RETRY

    def _lacks(self, kid: str | None) -> bool:
        unknown = kid is not None and all(known.kid != kid for known in self._keys)
        return unknown and time.monotonic() - self._asked > PACE

    def _fetch(self) -> None:
        import httpx

        self._tried = time.monotonic()
        if self._client is None:
            self._client = httpx.Client(timeout=PATIENCE / 2, follow_redirects=False)
        try:
            self._keys = _parsed(self._read(self._client), self._name)
            self._fetched = time.monotonic()
        except (httpx.HTTPError, UnicodeError, KeyUnusable) as error:
            # What was had before counts on for a while; only the kind, its text may hold the URL.
            self._why = str(error) if isinstance(error, KeyUnusable) else type(error).__name__

    def _read(self, client: "httpx.Client") -> str:
        deadline, body = time.monotonic() + PATIENCE, b""
        with client.stream("GET", self._url) as answer:
            if answer.status_code != 200:
                raise KeyUnusable(f"it answered {answer.status_code}")
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MOST_BYTES or time.monotonic() > deadline:
                    raise KeyUnusable("the document is too large, or comes too slowly")
        return body.decode()


remote = lru_cache(maxsize=32)(Remote)


@lru_cache(maxsize=32)
def _parsed(text: str, where: str) -> tuple[Known, ...]:
    """The keys of a document that can check; others (RFC 7517 §5) are passed over."""
    try:
        entries = strict_json(text)["keys"]
        usable = [key for entry in entries[:MOST_KEYS] if (key := _key(entry, where))]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KeyUnusable(f"{where} is no JWKS ({type(error).__name__})") from None
    if not usable:
        raise KeyUnusable(f"{where} holds no key for RS256, ES256 or EdDSA")
    return tuple(usable)


def _key(entry: dict[str, Any], where: str) -> Known | None:
    if "d" in entry or entry.get("kty") == "oct":
        raise KeyUnusable(f"{where} holds a private key: publish public ones only")
    algorithm = _KINDS.get((entry["kty"], entry.get("crv")))
    stated = "EdDSA" if entry.get("alg") == "Ed25519" else entry.get("alg", algorithm)
    for_checks = entry.get("use", "sig") == "sig" and "verify" in entry.get("key_ops", ["verify"])
    if algorithm is None or stated != algorithm or not for_checks:
        return None
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except jwt.PyJWTError as error:
        raise KeyUnusable(f"{where} holds a broken key ({type(error).__name__})") from None
    kid = entry.get("kid")
    usable = fits(key, algorithm) and isinstance(kid, str | None)
    return Known(algorithm, key, kid) if usable else None


def _entry(known: Known) -> dict[str, Any]:
    if known.algorithm == "HS256":
        raise ConfigError("a secret of HS256 is shared with one listener and never published")
    public = public_members(known.algorithm, known.key)
    kid = known.kid or thumbprint(known.algorithm, known.key)
    return {**public, "kid": kid, "alg": known.algorithm, "use": "sig"}
