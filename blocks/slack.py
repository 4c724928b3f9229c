"""A Slack channel that hears how runs go."""

import os
import re
import time
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks._channel import Channel, Kind, Note, kind, lasting_id, link, note
from blocks._messages import Message
from blocks._post import MAX_ANSWER
from blocks._slack import judge, said_by_api, said_by_webhook
from blocks.errors import ConfigError, KeyUnusable, NotDelivered


class SlackChannel(Channel, Block):
    """A Slack channel that hears how runs go.

    Example:
        ```python
        from blocks import SlackChannel

        slack = SlackChannel.load("BLOCK_NAME")
        print(slack.channel, slack.hears)
        ```
    """

    _block_type_name = "Slack Channel"
    _block_type_slug = "slack-channel"
    _description = "A Slack channel that hears how runs go."
    _documentation_url = HttpUrl("https://docs.slack.dev/reference/methods/chat.postMessage")

    token: SecretStr | None = Field(
        default=None,
        description="Token of an app with the scope chat:write (xoxb-…); it needs a channel, too.",
    )
    channel: str | None = Field(
        default=None,
        description="Name or ID of the channel that the app posts to.",
        examples=["#runs", "C024BE91L"],
    )
    webhook: SecretStr | None = Field(
        default=None,
        title="Webhook URL",
        description="An incoming webhook; used unless token and channel are both filled in.",
    )
    hears: list[Kind] = Field(
        default=["success", "failure", "late"],
        description="What it tells: that a run succeeded, failed, tries a task again, or is late.",
    )
    api_url: str = Field(
        default="https://slack.com/api", title="API URL", description="Where Slack is called."
    )
    timeout: float = Field(
        default=5.0, gt=0, le=60, description="Seconds to wait for an answer to one post."
    )

    @model_validator(mode="after")
    def _usable(self) -> "SlackChannel":
        if not (self.webhook or (self.token and self.channel)):
            raise ConfigError("a SlackChannel needs a token and a channel, or a webhook")
        if not _web_address(self.api_url):
            raise ConfigError("api_url must be http:// or https://, a host, and hold no password")
        return self

    @property
    def where(self) -> str:
        """For people: where its notes go; nothing of a webhook but its host."""
        if self.token and self.channel:
            return f"{self.channel} at {self.api_url}"
        url = _web_address(self.webhook.get_secret_value().strip() if self.webhook else "")
        return f"a webhook at {url.host}" if url else "a webhook that is no URL"

    def send(self, message: Message, attempt: int = 1) -> None:
        """Post a note of one message.

        Raises KeyUnusable when token or webhook cannot be one, and NotDelivered when Slack does not
        take the note. `client_msg_id` and the metadata are the same at every `attempt`, so that
        Slack can drop repeats; webhooks know neither. Redirects count as refused.
        """
        told = note(message, link(message))
        document: dict[str, Any] = {
            "text": _escaped(told.subject),
            "blocks": _blocks(told),
            "unfurl_links": False,
        }
        if self.token and self.channel:
            document |= {
                "channel": self.channel,
                "client_msg_id": str(lasting_id(message.id, self.channel)),
                "metadata": {
                    "event_type": "penstock_run",
                    "event_payload": {
                        "id": message.id,
                        "run": message.run,
                        "kind": kind(message) or message.state,
                    },
                },
            }
            bearer = {"authorization": f"Bearer {_token(self.token)}"}
            address = f"{self.api_url.rstrip('/')}/chat.postMessage"
            answer = self._post(message, httpx.URL(address), document, headers=bearer)
            judge(message.id, answer, said_by_api(answer))
        else:
            url = _webhook(self.webhook)
            # The path is the secret: only the socket may see it, since httpx logs every URL.
            path, host = {"target": url.raw_path}, url.copy_with(raw_path=b"/", fragment=None)
            answer = self._post(message, host, document, extensions=path)
            judge(message.id, answer, said_by_webhook(answer))

    def _post(
        self, message: Message, url: httpx.URL, document: dict[str, Any], **more: Any
    ) -> httpx.Response:
        client = _client(os.getpid())
        due = time.monotonic() + self.timeout
        try:
            with client.stream("POST", url, json=document, timeout=self.timeout, **more) as answer:
                return _bounded(answer, due)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Only the kind of the error: its text may hold the address.
            raise NotDelivered(
                f"no answer from Slack to {message.id}: {type(error).__name__}"
            ) from None


def _bounded(answer: httpx.Response, due: float) -> httpx.Response:
    """The answer with the beginning of its body: Slack's are short, another's may have no end."""
    body = b""
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            break
        if time.monotonic() > due:
            raise httpx.ReadTimeout("the time for the whole answer is over")
    headers = {"retry-after": answer.headers.get("retry-after", "")}
    return httpx.Response(answer.status_code, headers=headers, content=body)


@cache
def _client(process: int) -> httpx.Client:
    """The one client of this process (a fork has another), with a jar that keeps no cookie."""
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.Client(follow_redirects=False, cookies=jar)


def _token(secret: SecretStr) -> str:
    token = secret.get_secret_value().strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise KeyUnusable("the block's token is none of Slack's: copy it anew (xoxb-…)")
    return token


def _webhook(secret: SecretStr | None) -> httpx.URL:
    url = _web_address(secret.get_secret_value().strip() if secret else "")
    if url is None or url.path == "/":
        raise KeyUnusable(
            "the block's webhook is no URL of one: copy it anew (https://hooks.slack.com/…)"
        )
    return url


def _web_address(text: str) -> httpx.URL | None:
    # None also for one with a password in it, which would be logged with each request.
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        return None
    return url if url.scheme in ("http", "https") and url.host and not url.userinfo else None


def _blocks(told: Note) -> list[dict[str, Any]]:
    """The note as Slack's rich text: its elements hold plain text, so no text can be markup."""

    def text(words: str, **style: bool) -> dict[str, Any]:
        return {"type": "text", "text": words} | ({"style": style} if style else {})

    lines = [text(told.subject, bold=True)]
    for what, which in told.facts:
        lines += [text(f"\n{what}: "), text(which, code=True)]
    if told.link:
        lines += [text("\n"), {"type": "link", "url": told.link, "text": "show the run"}]
    parts = [{"type": "rich_text_section", "elements": lines}]
    for words in (told.error, "\n".join(told.log)):
        if words.strip():
            parts.append({"type": "rich_text_preformatted", "elements": [text(words)]})
    return [{"type": "rich_text", "elements": parts}]


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
