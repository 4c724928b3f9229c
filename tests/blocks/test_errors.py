"""The tree of errors is the one that is drawn, and its evidence survives a process boundary."""

import inspect
import pickle
import re

import pytest

from blocks import errors
from blocks.errors import (
    BlockMissing,
    ConfigError,
    JobFailed,
    JobTimedOut,
    JobVanished,
    KeyUnusable,
    NotDelivered,
    NotStopped,
    NotVerified,
    PenstockError,
    ServiceFailed,
    Unreachable,
)

EVERY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]
EXAMPLES = [
    PenstockError("something"),
    ConfigError("a setting"),
    BlockMissing("SparkConfig", "big", ["default", "small"]),
    KeyUnusable("a key"),
    NotVerified("a message"),
    NotDelivered("a report"),
    NotStopped("a run"),
    Unreachable("a system"),
    JobFailed("spark", "exited with 1", ["one", "two"]),
    JobTimedOut("spark", "was stopped", ["slow"]),
    JobVanished("spark", "vanished"),
    ServiceFailed("a server"),
]


def drawn():
    """Each name in the docstring's drawing, and the name it hangs on."""
    above: dict[int, str] = {}
    tree: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│ ] {3})*)([├└]── )?(\w+)(  |$)", line)
        if found:
            depth = len(found[1]) // 4 + bool(found[2])
            above[depth] = found[3]
            tree[found[3]] = above[depth - 1] if depth else "Exception"
    return tree


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in EVERY}


def test_no_error_has_two_bases():
    assert [kind for kind in EVERY if len(kind.__bases__) != 1] == []


def test_there_is_an_example_of_every_class():
    assert {type(example) for example in EXAMPLES} == set(EVERY)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_keeps_its_message_and_its_evidence_when_it_is_pickled(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_failed_job_says_who_why_and_its_last_lines():
    error = JobFailed("spark", "exited with 1", ["one", "two"])
    assert str(error) == "spark exited with 1; its last lines:\n    one\n    two"
    assert (error.name, error.why, error.tail) == ("spark", "exited with 1", ["one", "two"])


def test_a_failed_job_without_a_log_says_who_and_why():
    assert str(JobFailed("spark", "exited with 1")) == "spark exited with 1"


@pytest.mark.parametrize(
    ("saved", "told"), [(["a", "b"], "saved are: a, b"), ([], "none is saved")]
)
def test_a_missing_block_names_its_kind_its_name_and_what_is_saved(saved, told):
    text = str(BlockMissing("SparkConfig", "big", saved))
    assert "SparkConfig" in text
    assert "'big'" in text
    assert told in text
