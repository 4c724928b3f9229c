"""An outside system that hears how runs go."""

import json
import os
import time
from functools import cache
from typing import Any, Literal

import httpx
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import Field, HttpUrl, model_validator

from blocks._envelope import envelope, refer
from blocks._form import Form
from blocks._match import Match
from blocks._messages import SEED_ROUTES, Message
from blocks._post import Poster
from blocks._token import signed_headers
from blocks.errors import ConfigError
from blocks.signing import SigningKey


class ReportEndpoint(Form, Match, Block):
    """An outside system that hears how runs go, by signed HTTP posts.

    Example:
        ```python
        from blocks import ReportEndpoint

        endpoint = ReportEndpoint.load("BLOCK_NAME")
        print(endpoint.address("status"))
        ```
    """

    _block_type_name = "Report Endpoint"
    _block_type_slug = "report-endpoint"
    _description = "An outside system that hears how runs go, by signed HTTP posts."
    _documentation_url = HttpUrl("https://www.rfc-editor.org/rfc/rfc7519")

    url: str = Field(
        title="URL",
        description="Where the system listens.",
        examples=["https://reports.example.org"],
    )
    prefix: str = Field(
        default="",
        title="Path prefix",
        description="Path before progress, status and results.",
        examples=["satellite/v1"],
    )
    format: Literal["seed", "v1"] = Field(
        default="seed",
        description="What it is told in: seed is what older listeners read; v1 tells more.",
    )
    title_key: Literal["state", "title"] = Field(
        default="state",
        description="The field of a seed message that carries a state; older listeners read title.",
    )
    headers: SecretDict | None = Field(
        default=None,
        title="Secret headers",
        description="Extra request headers; their values are kept secret.",
        examples=[{"X-Api-Key": "its value"}],
    )
    signing_key: SigningKey | None = Field(
        default=None, description="The key that signs; needed unless unsigned is ticked."
    )
    unsigned: bool = Field(
        default=False, description="Send in the clear on purpose. Never a fallback."
    )
    audience: str | None = Field(
        default=None,
        description="Whom a v1 token is made for (its aud); the URL if empty.",
        examples=["reports.example.org"],
    )
    timeout: float = Field(
        default=10.0, gt=0, le=120, description="Seconds for one post, from first byte to last."
    )
    max_body: int = Field(
        default=1 << 20,
        gt=0,
        description="Bytes of results that are sent; larger ones are named, with their checksum.",
    )
    give_up_after: float = Field(
        default=72.0, gt=0, description="Hours for which a report is tried again and again."
    )
    ca_file: str | None = Field(
        default=None,
        title="CA file",
        description="Certificates to trust beside the system's, readable where flows run.",
        examples=["/etc/penstock/ca.pem"],
    )

    @model_validator(mode="after")
    def _usable(self) -> "ReportEndpoint":
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url {self.url!r} must begin with http:// or https://")
        if self.unsigned == (self.signing_key is not None):
            raise ConfigError("a ReportEndpoint needs a signing_key, or unsigned ticked, not both")
        return self

    def wants(self, message: Message) -> bool:
        """Whether its format has a form for the message."""
        return self.format == "v1" or message.route in SEED_ROUTES

    @property
    def explains(self) -> bool:
        """Whether its format shows why a run failed: its task, the last lines of its log."""
        return self.format == "v1"

    @property
    def where(self) -> str:
        """For people: where its messages go; no user or password that the URL may hold."""
        return str(httpx.URL(self.address("")).copy_with(username=None, password=None))

    def address(self, route: str) -> str:
        """The URL that messages of `route` go to."""
        parts = (self.url.rstrip("/"), self.prefix.strip("/"), route)
        return "/".join(part for part in parts if part)

    def send(self, message: Message, attempt: int = 1) -> None:
        """Sign and post one message; signed now, whenever it was made.

        Raises KeyUnusable or ConfigError before anything is sent when the key cannot sign or the
        certificates cannot be read, and NotDelivered when the answer is not 2xx or does not come in
        time. Redirects count as refused.
        """
        body, headers = self.request(message, attempt)
        address = self.address("events" if self.format == "v1" else message.route)
        _poster(os.getpid(), self.ca_file).post(
            address, body, headers, timeout=self.timeout, about=message.id
        )

    def request(self, message: Message, attempt: int = 1) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the post that tells `message`."""
        if self.format == "v1":
            body = _json(envelope(message, max_result=self.max_body))
            headers = {"webhook-id": message.id, "webhook-timestamp": str(int(time.time()))}
            if self.signing_key:
                headers = signed_headers(
                    self.signing_key,
                    body,
                    message.id,
                    issuer="penstock",
                    audience=self.audience or self.url,
                )
        else:
            fields = self._seed(message)
            body = _json({"payload": self.signing_key.sign(fields) if self.signing_key else fields})
            headers = {"webhook-id": message.id, "webhook-timestamp": str(int(time.time()))}
        own = {"content-type": "application/json", "webhook-attempt": str(attempt), **headers}
        extra = {name: value for name, value in self._extra_headers() if name.lower() not in own}
        return body, {**extra, **own}

    def _seed(self, message: Message) -> dict[str, Any]:
        fields = message.payload
        if reference := refer(message, self.max_body):
            return {**fields, "results": reference.model_dump()}
        if self.title_key != "state" and "state" in fields:
            fields = {self.title_key: fields.pop("state"), **fields}
        return fields

    def _extra_headers(self) -> list[tuple[str, str]]:
        secret: dict[str, Any] = self.headers.get_secret_value() if self.headers else {}
        return [(str(name), str(value)) for name, value in secret.items()]


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


@cache
def _poster(_pid: int, ca_file: str | None) -> Poster:
    """One for each process: a client costs tens of milliseconds, a connection a round trip."""
    try:
        return Poster(ca_file or True)
    except OSError as error:  # one of ssl's, too
        raise ConfigError(f"ca_file {ca_file} holds no certificates: {error.strerror}") from None
