"""The form that the Prefect UI makes of each block explains itself, and its example runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, TypeAdapter

import blocks
from blocks._command import EnvironmentFields
from tests.blocks.fields import EACH, parts

SAMPLES = Path(__file__).parents[2] / "deployments" / "blocks.example.toml"
SHORT = {"app", "args", "conf", "dir", "env", "num", "pem", "py", "url"}


@pytest.fixture(params=EACH, ids=blocks.__all__)
def block(request: pytest.FixtureRequest) -> type[Block]:
    kind: type[Block] = request.param
    return kind


@pytest.fixture
def form(block: type[Block]) -> dict[str, dict[str, Any]]:
    """What the form knows of each field, in the order in which it shows them."""
    fields = block.model_json_schema()["properties"]
    return dict(sorted(fields.items(), key=lambda item: item[1]["position"]))


class TestStandard(BlockStandardTestSuite):
    """Prefect's own tests of a block."""

    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        # Prefect takes no logo but an http address: each look at the form would go to the network.
        assert block._logo_url is None


def test_every_block_has_a_name_of_its_own(block):
    assert vars(block)["_block_type_name"]
    assert vars(block)["_description"].endswith(".")


def test_every_title_reads_well_and_is_there_once(form):
    titles = [field["title"] for field in form.values()]
    assert len(set(titles)) == len(titles)
    for title in titles:
        assert re.fullmatch(r"([A-Z]+s?|[A-Z][a-z]+)( ([A-Z]+s?|[a-z]+))*", title), title
        assert not {word.lower() for word in title.split() if not word.isupper()} & SHORT, title


def test_every_field_says_what_it_is_in_a_sentence(block):
    told = {name: field.description or "" for name, field in block.model_fields.items()}
    assert told != {}
    assert [name for name, text in told.items() if not text[:1].isupper() or text[-1] != "."] == []


def test_a_field_whose_value_is_not_obvious_has_an_example_that_the_form_tells(form):
    for name, field in form.items():
        obvious = {"enum", "default"} & set(field) or field.get("format") == "password"
        if field.get("type") in ("string", "array", "object") and not obvious:
            assert field.get("examples"), name
        assert ("examples" in field) == ("For example: " in field["description"]), name


def test_every_example_is_a_value_that_its_field_takes(block):
    for name, field in block.model_fields.items():
        for example in field.examples or []:
            assert TypeAdapter(field.annotation).validate_python(example), name


def test_no_field_asks_for_its_type_and_secrets_are_masked(block, form):
    for name, field in form.items():
        assert "anyOf" not in field, name
        if SecretStr in parts(block.model_fields[name].annotation):
            assert field["format"] == "password", name


def test_what_every_program_has_comes_after_what_is_the_blocks_own(block, form):
    shared = [name for name in form if name in EnvironmentFields.model_fields]
    assert list(form)[len(form) - len(shared) :] == shared
    assert len(shared) in (0, len(EnvironmentFields.model_fields))


@pytest.mark.alone(reason="deletes every document that was not there before")
def test_the_example_runs_as_the_ui_offers_it(api, block):
    samples = tomllib.loads(SAMPLES.read_text())[block.get_block_type_slug()]
    _, code, _ = (block.get_code_example() or "").split("```")
    # The page of a document puts its name there, and only where the words stand first.
    code = code.removeprefix("python").replace("BLOCK_NAME", next(iter(samples)), 1)
    assert "BLOCK_NAME" not in code
    before = {document.id for document in api.read_block_documents()}
    try:
        exec(compile(code, block.__name__, "exec"), {})
    finally:
        for document in api.read_block_documents():
            if document.id not in before:
                api.delete_block_document(document.id)
