"""Keys that sign reports, and keys that check them."""

from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks import _jwks, _keys
from blocks._form import Form
from blocks._keys import Algorithm, KeySet, Known
from blocks.errors import ConfigError

_JWT = jwt.PyJWT(options={"enforce_minimum_key_length": True})


class SigningKey(Form, Block):
    """A private key, or a shared secret, that signs reports.

    Example:
        ```python
        from blocks import SigningKey

        key = SigningKey.load("BLOCK_NAME")
        print(key.sign({"run_id": "42"}))
        ```
    """

    _block_type_name = "Signing Key"
    _block_type_slug = "signing-key"
    _description = "A private key that signs reports."
    _documentation_url = HttpUrl("https://www.rfc-editor.org/rfc/rfc7518")

    algorithm: Algorithm = Field(
        default="RS256",
        description="How to sign (RFC 7518); RS256 is what most listeners expect. HS256 takes a "
        "shared secret of 32 bytes or more in place of a PEM.",
    )
    path: str | None = Field(
        default=None,
        description="A file that holds the private key as PEM, readable where flows run.",
        examples=["/etc/penstock/signing.pem"],
    )
    variable: str | None = Field(
        default=None,
        description="Or the name of an environment variable that holds the PEM.",
        examples=["PENSTOCK_SIGNING_KEY"],
    )
    pem: SecretStr | None = Field(
        default=None,
        title="PEM",
        description="Or the PEM itself. Whoever may read blocks with secrets can read it.",
    )
    key_id: str | None = Field(
        default=None,
        title="Key ID",
        description="Told in the header of every token (kid), for listeners that hold many keys; "
        "if empty, the key's thumbprint (RFC 7638), which `penstock keys jwks` uses, too.",
        examples=["2026-11"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> "SigningKey":
        _exactly_one("SigningKey", path=self.path, variable=self.variable, pem=self.pem)
        return self

    def sign(self, payload: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        """Return a JWT (RFC 7519) whose claims are exactly `payload`.

        `headers` join the token's own. Raises KeyUnusable when the key is missing, broken, weak or
        of another kind than `algorithm`. The source is read at every call, and parsed when it is
        another than before: a replaced key signs from the next call on.
        """
        text, where = self._source()
        key = _keys.private_key(text, self.algorithm, where)
        kid = self.key_id or _keys.key_id(text, self.algorithm, where)
        named = {"kid": kid} if kid else {}
        return _JWT.encode(dict(payload), key, self.algorithm, headers={**named, **(headers or {})})

    def signature(self, content: bytes) -> bytes:
        """The bare signature of `content`, no token around it; raises KeyUnusable like `sign`."""
        return jwt.get_algorithm_by_name(self.algorithm).sign(content, self._key())

    def public(self) -> Known:
        """What checks what this key signs: for HS256, the secret itself."""
        key = self._key()
        held = key if self.algorithm == "HS256" else key.public_key()
        return Known(self.algorithm, held, self.key_id)

    def _key(self) -> Any:
        text, where = self._source()
        return _keys.private_key(text, self.algorithm, where)

    def _source(self) -> tuple[str, str]:
        """The key's text, and what an error calls the place it is from."""
        pem = self.pem.get_secret_value() if self.pem else None
        text = _keys.text_of(self.path, self.variable, pem)
        return text, _keys.place(self.path, self.variable)


class VerifyKey(Form, Block):
    """The keys of which any may have signed a report.

    Example:
        ```python
        from blocks import VerifyKey, SigningKey

        key = VerifyKey.load("BLOCK_NAME")
        print(key.verify(SigningKey.load("default").sign({"run_id": "42"})))
        ```
    """

    _block_type_name = "Verify Key"
    _block_type_slug = "verify-key"
    _description = "A public key that checks the signature of reports."
    _documentation_url = HttpUrl("https://www.rfc-editor.org/rfc/rfc7518")

    algorithm: Algorithm = Field(
        default="RS256",
        description="The one algorithm that is accepted; the token has no say. The keys of a JWKS "
        "each have their own.",
    )
    path: str | None = Field(
        default=None,
        description="A file that holds the public key as PEM, or several, one after the other; "
        "for HS256 the shared secret. It is read when needed.",
        examples=["/etc/penstock/signing.pub.pem"],
    )
    paths: list[str] = Field(
        default_factory=list,
        title="Several paths",
        description="Or several such files, for instance the old key's and the new one's.",
        examples=[["/etc/penstock/old.pub.pem", "/etc/penstock/new.pub.pem"]],
    )
    variable: str | None = Field(
        default=None,
        description="Or the name of an environment variable that holds what such a file would.",
        examples=["PENSTOCK_VERIFY_KEY"],
    )
    pem: str | None = Field(
        default=None,
        title="PEM",
        description="Or the PEM itself; it is no secret.",
        examples=["-----BEGIN PUBLIC KEY-----…"],
    )
    jwks: str | None = Field(
        default=None,
        title="JWKS",
        description="Or a JWKS document (RFC 7517): a file, or an https address that is asked "
        "again every five minutes and when a new key is met.",
        examples=["https://reports.example.org/.well-known/jwks.json"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> "VerifyKey":
        _exactly_one(
            "VerifyKey",
            path=self.path,
            paths=self.paths or None,
            variable=self.variable,
            pem=self.pem,
            jwks=self.jwks,
        )
        if self.algorithm == "HS256" and (self.pem or self.jwks):
            raise ConfigError(
                "a secret of HS256 must not stand in a VerifyKey: name its path or variable"
            )
        return self

    def key_set(self) -> KeySet:
        """The same keys as plain data."""
        paths = (self.path,) if self.path is not None else tuple(self.paths)
        return KeySet(self.algorithm, paths, self.variable, self.pem, self.jwks)

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of `token`.

        Raises NotVerified unless one of these keys signed exactly them, and KeyUnusable when a key
        is missing, broken, weak or of another kind than `algorithm`.
        """
        return self.key_set().verify(token)

    def opened(self, token: str) -> tuple[dict[str, Any], bytes]:
        """The header of `token` and the bytes that were signed, unread; raises like `verify`."""
        return self.key_set().opened(token)


def jwks(keys: Iterable[SigningKey]) -> dict[str, Any]:
    """A JWKS document of the public parts of `keys`; a key without a key_id is named by its hash.

    Raises ConfigError for HS256, whose only part is secret.
    """
    return _jwks.document(key.public() for key in keys)


def _exactly_one(kind: str, **sources: object) -> None:
    if sum(source is not None for source in sources.values()) != 1:
        *most, last = sources
        raise ConfigError(f"a {kind} needs exactly one of {', '.join(most)} or {last}")
