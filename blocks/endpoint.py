"""An outside system that hears how runs go."""

from typing import Any, Literal

import httpx
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import Field, HttpUrl, PrivateAttr, model_validator

from blocks._form import Form
from blocks._messages import Message, encode
from blocks.errors import ConfigError, NotDelivered
from blocks.signing import SigningKey


class ReportEndpoint(Form, Block):
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
    title_key: Literal["state", "title"] = Field(
        default="state", description="The field that carries a state; older listeners read title."
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
    match_deployments: list[str] = Field(
        default_factory=list,
        title="Only deployments",
        description="Names of the deployments whose runs it hears; all if empty.",
        examples=[["spark", "demo"]],
    )
    match_flows: list[str] = Field(
        default_factory=list,
        title="Only flows",
        description="Names of the flows whose runs it hears; all if empty.",
        examples=[["spark-job", "demo"]],
    )
    match_tags: list[str] = Field(
        default_factory=list,
        title="Only tags",
        description="It hears runs that have all of these tags; all runs if empty.",
        examples=[["nightly"]],
    )
    timeout: float = Field(
        default=5.0, gt=0, le=60, description="Seconds to wait for an answer to one post."
    )

    _client: httpx.Client | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _usable(self) -> "ReportEndpoint":
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url {self.url!r} must begin with http:// or https://")
        if self.unsigned == (self.signing_key is not None):
            raise ConfigError("a ReportEndpoint needs a signing_key, or unsigned ticked, not both")
        return self

    def matches(self, deployment: str | None, flow: str, tags: list[str]) -> bool:
        """Whether this endpoint wants to hear a run of that deployment, flow and tags."""
        return (
            (not self.match_deployments or deployment in self.match_deployments)
            and (not self.match_flows or flow in self.match_flows)
            and set(self.match_tags) <= set(tags)
        )

    def address(self, route: str) -> str:
        """The URL that messages of `route` go to."""
        parts = (self.url.rstrip("/"), self.prefix.strip("/"), route)
        return "/".join(part for part in parts if part)

    def send(self, message: Message) -> None:
        """Sign and post one message.

        Raises KeyUnusable before anything is sent when the key cannot sign, and NotDelivered when
        the answer is not 2xx or does not come. Redirects count as refused.
        """
        sign = self.signing_key.sign if self.signing_key else None
        body = encode(message.renamed(self.title_key), sign)
        headers = {
            **self._extra_headers(),
            "content-type": "application/json",
            "webhook-id": message.id,
        }
        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout, follow_redirects=False)
        try:
            answer = self._client.post(self.address(message.route), content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Only the kind of the error: its text may hold a URL with a password.
            raise NotDelivered(f"no answer to {message.id}: {type(error).__name__}") from None
        if not answer.is_success:
            raise NotDelivered(f"{message.id} was answered with {answer.status_code}")

    def _extra_headers(self) -> dict[str, str]:
        secret: dict[str, Any] = self.headers.get_secret_value() if self.headers else {}
        return {str(name): str(value) for name, value in secret.items()}
