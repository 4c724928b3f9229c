"""What a Prefect server knows of the blocks: their types, and none of their secrets."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin
from uuid import UUID, uuid4

import pytest
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import BaseModel, SecretStr

from tests.blocks.fields import EACH, holds_secret, parts, secret

CHECKOUT = Path(__file__).parents[2]
WITH_SECRETS = [block for block in EACH if holds_secret(block)]
Save = Callable[[Any], tuple[str, UUID]]


@pytest.fixture
def save(api: Any) -> Iterator[Save]:
    """Save a block until the test ends; gives its name and its document's id."""
    saved = []

    def saving(block: Any) -> tuple[str, UUID]:
        name = f"canary-{uuid4().hex}"
        saved.append(block.save(name))
        return name, saved[-1]

    yield saving
    for document in reversed(saved):
        api.delete_block_document(document)


class Canaries(list[str]):
    """Secrets that no text holds by chance, one for each field that takes any."""

    def fill(self, model: type[BaseModel], nest: Callable[[Any], Any]) -> Any:
        """A `model` with a canary in every secret field; `nest` sees what is put into a field."""
        values = {
            name: self._value(field.annotation, nest)
            if holds_secret(field.annotation)
            else (field.examples or [None])[0]
            for name, field in model.model_fields.items()
            if holds_secret(field.annotation) or field.is_required()
        }
        return model(**values)

    def _value(self, annotation: Any, nest: Callable[[Any], Any]) -> Any:
        part = next(part for part in parts(annotation) if holds_secret(part))
        if get_origin(part) is list:
            return [self._value(get_args(part)[0], nest)]
        if not secret(part):
            return nest(self.fill(part, nest))
        self.append(f"canary-{uuid4().hex}")
        return {"key": self[-1]} if part is SecretDict else self[-1]

    def seen(self, text: str) -> list[str]:
        return [canary for canary in self if canary in text]


def answers(
    api: Any, kind: type[Block], name: str, document: UUID, **flags: bool
) -> dict[str, str]:
    """What the API answers about a document, in every way it can be asked."""
    of_type = "/block_types/slug/{slug}/block_documents"
    path = {"id": document, "slug": kind.get_block_type_slug(), "block_document_name": name}
    by = {
        "id": api.request("GET", "/block_documents/{id}", params=flags, path_params=path),
        "type": api.request("GET", of_type, params=flags, path_params=path),
        "name": api.request(
            "GET", of_type + "/name/{block_document_name}", params=flags, path_params=path
        ),
        "filter": api.request(
            "POST",
            "/block_documents/filter",
            json={**flags, "block_documents": {"id": {"any_": [str(document)]}}},
        ),
    }
    return {way: answer.text for way, answer in by.items()}


def test_prefect_finds_secrets_in_the_same_blocks_as_these_tests():
    known = [block for block in EACH if block.model_json_schema()["secret_fields"]]
    assert known == WITH_SECRETS
    assert len(known) > 1


@pytest.mark.alone(reason="an endpoint that is saved hears every run")
@pytest.mark.parametrize("nested", ["inside", "by reference"])
@pytest.mark.parametrize("kind", WITH_SECRETS, ids=lambda kind: kind.__name__)
def test_the_api_shows_no_secret_unless_it_is_asked_to(api, save, kind, nested):
    def by_reference(block: Any) -> Any:
        name, _ = save(block)
        return type(block).load(name)

    canaries = Canaries()
    block = canaries.fill(kind, by_reference if nested == "by reference" else lambda value: value)
    name, document = save(block)
    for way, text in answers(api, kind, name, document).items():
        assert name in text, way
        assert canaries.seen(text) == [], way
    for way, text in answers(api, kind, name, document, include_secrets=True).items():
        assert canaries.seen(text) == canaries != [], way


@pytest.mark.parametrize("kind", WITH_SECRETS, ids=lambda kind: kind.__name__)
def test_a_block_never_shows_its_secrets(kind):
    canaries = Canaries()
    block = canaries.fill(kind, lambda value: value)
    shown = [repr(block), str(block), block.model_dump_json(), repr(block.model_dump())]
    assert [canaries.seen(text) for text in shown] == [[]] * len(shown)


def test_these_tests_would_see_a_secret_that_the_api_shows(api):
    class Leaky(Block):
        tokens: dict[str, SecretStr]

    canaries = Canaries(["canary-in-a-dict"])
    document = Leaky(tokens={"key": SecretStr(canaries[0])}).save("leaky")
    try:
        for way, text in answers(api, Leaky, "leaky", document).items():
            assert canaries.seen(text) == canaries, way
    finally:
        api.delete_block_type(api.read_block_type_by_slug("leaky").id)


def python(*words: str) -> str:
    """Run Python in the checkout, as a client of the session's server that knows nothing yet."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=CHECKOUT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.alone(reason="a type is deleted, and its documents with it")
def test_registering_teaches_a_server_the_types_it_lacks(installation, api):
    slugs = {block.get_block_type_slug() for block in EACH}

    def known():
        return slugs & {kind["slug"] for kind in api.request("POST", "/block_types/filter").json()}

    assert known() == slugs
    api.delete_block_type(api.read_block_type_by_slug("verify-key").id)
    assert known() == slugs - {"verify-key"}
    python("-m", "prefect", "block", "register", "-m", "blocks")
    assert known() == slugs
    # Its documents went with the type: the sample comes back.
    seeded = installation.command("seed", PREFECT_API_URL=installation.api_url)
    assert seeded.out == "saved verify-key/default\n", seeded.err


def test_a_client_that_never_imported_the_blocks_loads_one_as_our_class(installation):
    program = """
import sys
from prefect.blocks.core import Block
print("blocks" in sys.modules)
block = Block.load("report-endpoint/listener")
print(type(block).__module__, type(block).__name__, type(block.signing_key).__name__)
"""
    assert python("-c", program).split() == [
        "False",
        "blocks.endpoint",
        "ReportEndpoint",
        "SigningKey",
    ]
