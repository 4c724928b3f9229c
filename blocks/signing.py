"""Keys that sign reports, and keys that check them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks._form import Form
from blocks.errors import ConfigError, KeyUnusable, NotVerified

_JWT = jwt.PyJWT(options={"enforce_minimum_key_length": True})
Algorithm = Literal["RS256", "ES256", "EdDSA"]


class SigningKey(Form, Block):
    """A private key that signs reports.

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
        default="RS256", description="How to sign (RFC 7518); RS256 is what most listeners expect."
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

    @model_validator(mode="after")
    def _one_source(self) -> "SigningKey":
        _exactly_one_source("SigningKey", self.path, self.variable, self.pem)
        return self

    def sign(self, payload: Mapping[str, Any]) -> str:
        """Return a JWT (RFC 7519) whose claims are exactly `payload`.

        Raises KeyUnusable when the key is missing, broken or of another kind than `algorithm`.
        """
        text = _pem(self.path, self.variable, self.pem)
        try:
            key = load_pem_private_key(text.encode(), password=None)
            return _JWT.encode(
                dict(payload),
                key,  # type: ignore[arg-type]  # PyJWT checks the kind of key itself
                algorithm=self.algorithm,
            )
        except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError) as error:
            # Only the kind of the error: its text may quote the key.
            raise KeyUnusable(
                f"the signing key in {_source(self.path, self.variable)} is no private key "
                f"for {self.algorithm} ({type(error).__name__})"
            ) from None


class VerifyKey(Form, Block):
    """A public key that checks the signature of reports.

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
        default="RS256", description="The one algorithm that is accepted; the token has no say."
    )
    path: str | None = Field(
        default=None,
        description="A file that holds the public key as PEM, read when needed.",
        examples=["/etc/penstock/signing.pub.pem"],
    )
    pem: str | None = Field(
        default=None,
        title="PEM",
        description="Or the PEM itself; it is no secret.",
        examples=["-----BEGIN PUBLIC KEY-----…"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> "VerifyKey":
        _exactly_one_source("VerifyKey", self.path, None, self.pem)
        return self

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of `token`; raise NotVerified unless this key signed exactly them."""
        text = _pem(self.path, None, self.pem)
        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyUnusable(
                f"{_source(self.path, None)} holds no public key as PEM ({type(error).__name__})"
            ) from None
        try:
            return jwt.decode(
                token,
                key,  # type: ignore[arg-type]  # PyJWT checks the kind of key itself
                algorithms=[self.algorithm],
                options={"enforce_minimum_key_length": True},
            )
        except (jwt.InvalidKeyError, TypeError):
            raise KeyUnusable(
                f"{_source(self.path, None)} holds no public key for {self.algorithm}"
            ) from None
        except (jwt.PyJWTError, ValueError) as error:
            raise NotVerified(f"signature refused: {error}") from None


def _exactly_one_source(kind: str, *sources: object) -> None:
    if sum(source is not None for source in sources) != 1:
        names = "path, variable or pem" if kind == "SigningKey" else "path or pem"
        raise ConfigError(f"a {kind} needs exactly one of {names}")


def _source(path: str | None, variable: str | None) -> str:
    return path or (f"${variable}" if variable else "the block")


def _pem(path: str | None, variable: str | None, pem: SecretStr | str | None) -> str:
    if path is not None:
        try:
            return Path(path).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise KeyUnusable(f"the key file {path} cannot be read: {reason}") from None
    if variable is not None:
        if not (text := os.environ.get(variable)):
            raise KeyUnusable(f"the environment variable {variable}, meant to hold a key, is unset")
        return text
    return pem.get_secret_value() if isinstance(pem, SecretStr) else str(pem)
