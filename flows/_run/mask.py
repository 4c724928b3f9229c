"""Take known secrets out of text before anyone reads it.

blocks of a run ──► secrets_in() ──► learn() ──► masked(): reports, and every line of the log
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from blocks._command import STARS

SHORTEST = 4  # a secret of three letters would blacken half the log, and is none


def masker(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces each of `secrets` in a text by stars."""
    # The longest first: one secret may be the beginning of another.
    known = sorted(
        {line for s in secrets for line in (s, *s.splitlines()) if len(line) >= SHORTEST},
        key=len,
        reverse=True,
    )
    if not known:
        return str
    pattern = re.compile("|".join(map(re.escape, known)))
    return lambda text: pattern.sub(STARS, text)


def secrets_in(value: Any) -> Iterator[str]:
    """Every secret text in a block, however deep."""
    if isinstance(value, SecretBytes):
        yield value.get_secret_value().decode(errors="replace")
    elif isinstance(value, SecretStr | Secret):
        yield from _texts(value.get_secret_value())
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from secrets_in(one)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from secrets_in(one)


def _texts(secret: Any) -> Iterator[str]:
    if isinstance(secret, Mapping):
        secret = [*secret.values()]
    if isinstance(secret, list | tuple | set | frozenset):
        for one in secret:
            yield from _texts(one)
    elif secret is not None and not isinstance(secret, bool):
        yield str(secret)


def learn(secrets: Iterable[str]) -> None:
    """From now on this process masks `secrets` in its log, and wherever `masked` is asked."""
    global _mask  # noqa: PLW0603 - guarded by _lock, one for the process as its log is
    with _lock:
        for secret in secrets:
            # An error may quote it as Python or JSON has it.
            _known.update((secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]))
        if _known and _mask is str:
            logging.setLogRecordFactory(_record_maker(logging.getLogRecordFactory()))
        _mask = masker(_known)


def masked(text: str) -> str:
    """`text` without the secrets that this process has learnt."""
    return _mask(text)


def _record_maker(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def made(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        try:
            record.msg, record.args = masked(record.getMessage()), ()
        except (TypeError, ValueError, KeyError):
            return record  # its arguments do not fit its text: the handler says so
        if record.exc_info:
            record.exc_text = masked(_PLAIN.formatException(record.exc_info))
        return record

    return made


_PLAIN = logging.Formatter()
_lock = threading.Lock()
_known: set[str] = set()
_mask: Callable[[str], str] = str
