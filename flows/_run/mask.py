"""Take known secrets out of text before anyone reads it."""

import re
from collections.abc import Callable, Iterable

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
