"""Known secrets are out of a text before anyone reads it."""

import pytest

from flows._run.mask import masker

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


def test_stars_say_nothing_about_the_length_of_a_secret():
    assert masker(["four"])("four") == masker(["a much longer secret"])("a much longer secret")


@pytest.mark.parametrize("secret", ["first line\nsecond line", "hunter2\n", "hunter2\r\n"])
def test_a_secret_of_several_lines_is_masked_in_a_log_that_is_read_line_by_line(secret):
    mask = masker([secret])
    assert [mask(line) for line in secret.splitlines()] == [STARS] * len(secret.splitlines())
