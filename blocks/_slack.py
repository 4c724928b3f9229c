"""What Slack's answers mean: taken, to be sent again later, mendable by somebody, or hopeless."""

import math
import re
from typing import Any

import httpx

from blocks.errors import NotDelivered

# Slack's errors that somebody can mend: https://docs.slack.dev/reference/methods/chat.postMessage
# and, of webhooks, https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
_TOKEN = "put the token of an app that is installed in the workspace into the block"  # noqa: S105 - advice
_WEBHOOK = "make a new webhook and put its URL into the block"
_INVITE = "invite the app to the channel (/invite)"
_FIXES = {
    "invalid_auth": _TOKEN,
    "not_authed": _TOKEN,
    "account_inactive": _TOKEN,
    "token_revoked": _TOKEN,
    "token_expired": _TOKEN,
    "not_allowed_token_type": _TOKEN,
    "missing_scope": "give the app the scope chat:write and install it anew",
    "no_permission": _INVITE,
    "not_in_channel": _INVITE,
    "channel_not_found": f"name a channel that exists; if it is private, {_INVITE}",
    "is_archived": "name a channel that is not archived",
    "channel_is_archived": "name a channel that is not archived",
    "restricted_action": "let the app post to the channel, in the workspace's settings",
    "action_prohibited": "let the app post to the channel, in the workspace's settings",
    "no_service": _WEBHOOK,
    "no_service_id": _WEBHOOK,
    "no_active_hooks": _WEBHOOK,
    "no_team": _WEBHOOK,
    "invalid_token": _WEBHOOK,
}
# What the same message meets at every attempt.
_FINAL = {
    "msg_too_long",
    "msg_blocks_too_long",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_payload",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "metadata_too_large",
    "no_text",
}
_LIMITED = {"ratelimited", "rate_limited", "message_limit_exceeded"}


def said_by_api(answer: httpx.Response) -> str | None:
    """Slack's word for what went wrong, "" if nothing did, None if the answer is not Slack's."""
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return "" if document.get("ok") is True else _word(document.get("error"))


def said_by_webhook(answer: httpx.Response) -> str | None:
    said = answer.text.strip()
    return "" if said == "ok" else _word(said.lower().replace(" ", "_"))


def _word(said: Any) -> str | None:
    # Whatever else stands there may be anything, also what we sent.
    return said if isinstance(said, str) and re.fullmatch(r"[a-z_]{1,40}", said) else None


def judge(message_id: str, answer: httpx.Response, said: str | None) -> None:
    """Raise NotDelivered unless `answer` says that the note was taken; `said` is the word in it."""
    if answer.status_code == 200 and said == "":
        return
    status, wait = answer.status_code, _seconds(answer.headers.get("retry-after"))
    if status == 429 or said in _LIMITED:
        after = f" for {wait:g} s" if wait is not None else ""
        why = f"Slack wants no more notes{after}: {message_id} has to wait"
    elif said:
        fix = f"; {_FIXES[said]}" if said in _FIXES else ""
        why = f"Slack refused {message_id} with {said}{fix}"
    elif status == 200:
        why = f"{message_id} was answered with something that is not Slack's: check the address"
    else:
        why = f"{message_id} was answered with {status}"
    raise NotDelivered(why, status=status, retry_after=wait, final=said in _FINAL)


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
