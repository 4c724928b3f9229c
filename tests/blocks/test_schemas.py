"""The registry of blocks: all of them, under names that stay, with secrets only where they hide."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_origin

import pytest
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import BaseModel, SecretStr

import blocks
from tests.blocks.fields import EACH, holds_secret, parts, secret

CHECKOUT = Path(__file__).parents[2]
SLUGS = {
    "CwlConfig": "cwl-config",
    "MailChannel": "mail-channel",
    "NotebookConfig": "notebook-config",
    "ReportEndpoint": "report-endpoint",
    "SigningKey": "signing-key",
    "SlackChannel": "slack-channel",
    "SparkConfig": "spark-config",
    "VerifyKey": "verify-key",
}


def shown(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The fields whose secrets the API would return in the clear.

    It hides a secret that is a field's own value, one in a list of secrets, and those of a nested
    block; not one deeper in a list, and none in a dict.
    """
    for name, field in model.model_fields.items():
        here = f"{path}{name}"
        for part in parts(field.annotation):
            if get_origin(part) is list and all(secret(p) for p in parts(get_args(part)[0])):
                continue
            if get_origin(part) is not None and holds_secret(part):
                yield here
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield from shown(part, f"{here}.")


class Open(BaseModel):
    name: str


class Locked(BaseModel):
    password: SecretStr


class Deep(BaseModel):
    inner: list[Locked] | None = None


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (SecretStr, []),
        (SecretStr | None, []),
        (SecretDict | None, []),
        (list[SecretStr], []),
        (list[SecretStr] | None, []),
        (Locked, []),
        (Locked | None, []),
        (list[Open], []),
        (dict[str, Open], []),
        (dict[str, SecretStr], ["field"]),
        (dict[str, SecretStr] | None, ["field"]),
        (dict[str, list[SecretStr]], ["field"]),
        (list[list[SecretStr]], ["field"]),
        (list[Locked], ["field"]),
        (list[Locked] | None, ["field"]),
        (dict[str, Locked], ["field"]),
        (list[SecretStr | Locked], ["field"]),
        (tuple[Locked, ...], ["field"]),
        (list[Deep], ["field"]),
        (Deep, ["field.inner"]),
        (Deep | None, ["field.inner"]),
    ],
    ids=str,
)
def test_the_walk_of_this_test_finds_what_the_api_would_show(annotation, found):
    # A plain model: to define a Block would make Prefect know it.
    model = type("Sample", (BaseModel,), {"__annotations__": {"field": annotation}})
    assert list(shown(model)) == found


@pytest.mark.parametrize("block", EACH, ids=blocks.__all__)
def test_no_field_shows_a_secret(block):
    assert list(shown(block)) == []


def test_slugs_never_change():
    assert {block.__name__: vars(block)["_block_type_slug"] for block in EACH} == SLUGS


def test_a_block_is_looked_up_by_the_key_that_prefect_would_make():
    for block in EACH:
        made = Block.__dispatch_key__.__func__(block)
        assert block.__dispatch_key__() == made == SLUGS[block.__name__]
        assert Block.get_block_class_from_key(made) is block


def test_the_registry_names_every_block_and_where_it_is():
    assert sorted(blocks._WHERE) == sorted(blocks.__all__)
    for name, module in blocks._WHERE.items():
        assert getattr(blocks, name).__module__ == module
        assert getattr(import_module(module), name) is getattr(blocks, name)


def test_every_block_that_is_defined_is_in_the_registry():
    for path in (CHECKOUT / "blocks").glob("[a-z]*.py"):
        found = vars(import_module(f"blocks.{path.stem}"))
        own = [v for v in found.values() if getattr(v, "__module__", "") == f"blocks.{path.stem}"]
        defined = {v.__name__ for v in own if isinstance(v, type) and issubclass(v, Block)}
        assert defined <= set(blocks.__all__)


def test_dir_lists_every_block_since_that_is_where_prefect_looks():
    assert set(blocks.__all__) <= set(dir(blocks))


def test_a_name_that_is_no_block_is_no_attribute():
    with pytest.raises(AttributeError, match="NoSuchBlock"):
        _ = blocks.NoSuchBlock


def loaded(statement: str) -> set[str]:
    """The modules of ours and Prefect's that a new Python has after `statement`."""
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    return {name for name in done.stdout.split() if name.split(".")[0] in ("blocks", "prefect")}


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import blocks", {"blocks"}),
        ("import blocks; dir(blocks)", {"blocks"}),
        ("import blocks.errors", {"blocks", "blocks.errors"}),
        ("import blocks._home", {"blocks", "blocks._home", "blocks.errors"}),
    ],
)
def test_what_needs_no_prefect_does_not_wait_for_it(statement, modules):
    assert loaded(statement) == modules


def test_the_entry_point_makes_prefect_know_every_block():
    modules = loaded("import blocks._all")
    assert "prefect" in modules
    assert set(blocks._WHERE.values()) <= modules
