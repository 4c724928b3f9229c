"""Known secrets are out of a text before anyone reads it."""

import logging
from typing import Any

import pytest
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from flows._run.mask import learn, masked, masker, secrets_in

STARS = "********"


@pytest.mark.parametrize(
    ("secrets", "text", "seen"),
    [
        (["hunter2"], "password hunter2!", f"password {STARS}!"),
        (["hunter2"], "hunter2hunter2", STARS * 2),
        (["hunter2"], "Hunter2 is another word", "Hunter2 is another word"),
        (["hunter2", "hunter2-more"], "hunter2-more hunter2", f"{STARS} {STARS}"),
        (["hunter2-more", "hunter2"], "hunter2-more hunter2", f"{STARS} {STARS}"),
        (["a.c+(", "^$[x]"], "a.c+( ^$[x] abc", f"{STARS} {STARS} abc"),
        (["back\\slash"], "a back\\slash", f"a {STARS}"),
        (["pässwörd ✈"], "my pässwörd ✈.", f"my {STARS}."),
        (["one", "two2"], "one two2", f"one {STARS}"),
        (["four"], "four", STARS),
        (["", "abc"], "abc", "abc"),
        ([], "hunter2", "hunter2"),
        (["hunter2"], "", ""),
    ],
)
def test_each_secret_of_four_letters_or_more_becomes_stars(secrets, text, seen):
    assert masker(secrets)(text) == seen


def test_secrets_may_come_as_any_iterable_and_are_read_once():
    mask = masker(secret for secret in ["hunter2", "pa55word"])
    assert [mask("hunter2"), mask("pa55word")] == [STARS, STARS]


class Inner(BaseModel):
    token: SecretStr


class Outer(BaseModel):
    name: str = "in the clear"
    inner: Inner = Inner(token="deep-down")
    more: Secret[dict[str, Any]] = Secret[dict[str, Any]]({"a": "one-more", "b": 123456, "c": True})
    raw: SecretBytes = SecretBytes(b"in-bytes")
    none: SecretStr | None = None


def test_the_secrets_of_a_block_are_found_however_deep():
    assert [*secrets_in(Outer())] == ["deep-down", "one-more", "123456", "in-bytes"]


def test_what_was_learnt_is_masked_in_lines_and_tracebacks_of_the_log(caplog):
    secret = "back\\slash 'quoted'"
    assert masked(secret) == secret
    learn([secret])
    try:
        raise KeyError(secret)
    except KeyError:
        logging.getLogger("anybody").exception("it was %s", secret)
    assert f"it was {STARS}" in caplog.text
    assert "KeyError" in caplog.text
    assert "slash" not in caplog.text.replace("secret", "")
    assert masked(f"<{secret}>") == f"<{STARS}>"


def test_stars_say_nothing_about_the_length_of_a_secret():
    assert masker(["four"])("four") == masker(["a much longer secret"])("a much longer secret")


@pytest.mark.parametrize("secret", ["first line\nsecond line", "hunter2\n", "hunter2\r\n"])
def test_a_secret_of_several_lines_is_masked_in_a_log_that_is_read_line_by_line(secret):
    mask = masker([secret])
    assert [mask(line) for line in secret.splitlines()] == [STARS] * len(secret.splitlines())
