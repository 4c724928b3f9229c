"""Which messages came before: a repeat is answered well and not kept again.

Its sender may have missed the first answer. In the seed's format an id counts within its route, and
without an id (older senders have none) equal fields are a repeat. In v1 an id counts everywhere; a
repeat that brings other content is noted once, as not verified, and answered well: what came first
stands.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from deployments.listener.store import Heard

OTHER = "the id came before with another content"
Key = tuple[str, ...]


class Repeats:
    """The ids of what is kept, and of what is being kept."""

    def __init__(self, heard: Iterable[Heard]) -> None:
        self._seen: dict[Key, str] = {}  # to the digest of what came first
        self._pending: dict[Key, asyncio.Future[None]] = {}
        for one in heard:
            if one.verified:
                self._seen.setdefault(_key(one), one.digest)
            elif one.digest:
                self._seen[*_key(one), one.digest] = one.digest

    async def keep(self, heard: Heard, add: Callable[[Heard], Awaitable[None]]) -> bool:
        """Whether it was new; kept it is, either way, on return. OSError when it cannot be."""
        if not heard.verified:
            await add(heard)
            return True
        key = _key(heard)
        if not await self._once(key, heard, add):
            if self._seen[key] != heard.digest:
                refused = replace(heard, verified=False, payload=None, why=OTHER)
                await self._once((*key, heard.digest), refused, add)
            return False
        return True

    async def _once(self, key: Key, heard: Heard, add: Callable[[Heard], Awaitable[None]]) -> bool:
        if key in self._seen:
            if pending := self._pending.get(key):
                await asyncio.shield(pending)  # no 2xx to a repeat before the first is safe
            return False
        self._seen[key] = heard.digest
        self._pending[key] = adding = asyncio.ensure_future(add(heard))
        adding.add_done_callback(lambda done: self._done(key, done))
        await asyncio.shield(adding)
        return True

    def _done(self, key: Key, done: "asyncio.Future[None]") -> None:
        del self._pending[key]
        if done.cancelled() or done.exception():
            del self._seen[key]


def _key(heard: Heard) -> Key:
    if heard.format == "v1":
        return ("v1", heard.id)
    if heard.id:
        return ("seed", heard.id, heard.route)
    fields = json.dumps(heard.payload, sort_keys=True).encode()
    return ("seed", "", heard.route, hashlib.sha256(fields).hexdigest())
