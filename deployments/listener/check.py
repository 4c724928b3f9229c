"""What a post is worth: which format it has, whether it is ours, what it says.

Two formats on one port, told apart by the header `webhook-signature`:
    seed  {"payload": <JWT>} to progress, status or results; the JWT holds the fields
    v1    a JSON object to any route; the header holds a JWT with the body's digest
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks._keys import KeySet, strict_json
from blocks._messages import SEED_ROUTES, decode
from blocks._token import MAX_BODY, check_timestamp, verify_headers
from blocks.errors import KeyUnusable, NotVerified
from deployments.listener.store import Heard

MOST_SHOWN = 256  # characters that are kept of what nobody vouches for
FINAL = ("success", "failed")


@dataclass(frozen=True)
class Post:
    """One request, read whole."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def route(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def format(self) -> str:
        return "v1" if "webhook-signature" in self.headers else "seed"

    @property
    def known(self) -> bool:
        """Whether there is such a route: any in v1, three in the seed's format."""
        return bool(self.route) if self.format == "v1" else self.route in SEED_ROUTES


@dataclass(frozen=True)
class Check:
    """What posts are held against."""

    keys: KeySet
    audience: str | None = None  # None: whichever a v1 token names
    tolerance: float = 300
    max_body: int = MAX_BODY

    def __call__(self, post: Post) -> Heard:
        """Verified with its fields, or refused with the reason; never raises."""
        try:
            if post.format == "v1":
                payload, digest = self._v1(post)
            else:
                payload, digest = self._seed(post), ""
        except (NotVerified, KeyUnusable) as error:
            return self.refused(post, str(error))
        return Heard(
            _now(),
            post.headers.get("webhook-id", ""),
            post.route,
            verified=True,
            payload=payload,
            format=post.format,
            seq=_whole_number(field(payload, "seq")),
            attempt=_whole_number(field(payload, "attempt")),
            digest=digest,
        )

    def refused(self, post: Post, why: str) -> Heard:
        """What is kept of a post that nobody vouches for."""
        return Heard(
            _now(),
            post.headers.get("webhook-id", "")[:MOST_SHOWN],
            post.route[:MOST_SHOWN],
            verified=False,
            why=why[:MOST_SHOWN],
            format=post.format,
        )

    def _seed(self, post: Post) -> dict[str, Any]:
        if stamp := post.headers.get("webhook-timestamp"):
            check_timestamp(stamp, tolerance=self.tolerance)
        return decode(post.body, self.keys.verify, max_body=self.max_body)

    def _v1(self, post: Post) -> tuple[dict[str, Any], str]:
        claims = verify_headers(
            self.keys,
            post.headers,
            post.body,
            audience=self.audience,
            tolerance=self.tolerance,
            max_body=self.max_body,
        )
        try:
            document = strict_json(post.body)
        except ValueError as error:
            raise NotVerified(f"the body is no JSON: {error}") from None
        if not isinstance(document, dict):
            raise NotVerified("the body is no JSON object")
        return document, str(claims["sha256"])


def field(payload: Mapping[str, Any] | None, name: str) -> Any:
    """A field of a message; None when it has none of that name."""
    return (payload or {}).get(name)


def kind(heard: Heard) -> str:
    """What a message tells: v1 says it itself, a seed message by its route."""
    named = field(heard.payload, "type") if heard.format == "v1" else heard.route
    return named if isinstance(named, str) else heard.route


def state(heard: Heard) -> str | None:
    """The word for a state; older listeners, and so their senders, call it title."""
    word = field(heard.payload, "state") or field(heard.payload, "title")
    return word if isinstance(word, str) else None


def task(heard: Heard) -> str | None:
    """The task that a message is about; None when it is about a run."""
    named = field(heard.payload, "task_id")  # v1 has an object in its place, with id and run
    about = field(heard.payload, "task")
    if isinstance(about, Mapping):
        named = about.get("id")
    return named if isinstance(named, str) else None


def run(heard: Heard) -> str | None:
    """The run as the outside calls it."""
    named = field(heard.payload, "run_id")
    return named if isinstance(named, str) else None


def ends(heard: Heard) -> set[str]:
    """The ids, its names outside and in Prefect, of the run whose end a message tells."""
    if not heard.verified or task(heard) is not None or state(heard) not in FINAL:
        return set()
    ids = {field(heard.payload, "run")}
    if kind(heard) != "child" and field(heard.payload, "parent") is None:
        ids.add(run(heard))
    return {one for one in ids if isinstance(one, str)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
