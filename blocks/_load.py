"""Load a block by name: one typed, always synchronous way."""

from datetime import datetime
from typing import TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.errors import BlockMissing, ConfigError

B = TypeVar("B", bound=Block)


def load(kind: type[B], name: str = "default") -> B:
    """Return the saved document `name` of block type `kind`.

    Raises BlockMissing, naming what is saved instead, or ConfigError when the document does not
    fit its type any more.
    """
    try:
        # _sync: called from a sync hook of an async flow, plain load() would return a coroutine.
        block = kind.load(name, _sync=True)  # type: ignore[call-arg]  # undocumented
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound) or "Unable to find block" in str(error):
            raise BlockMissing(kind.__name__, name, saved(kind)) from None
        raise ConfigError(f"{kind.__name__} {name!r} cannot be used: {error}") from error
    if not isinstance(block, kind):
        raise ConfigError(f"{kind.__name__} {name!r} is a {type(block).__name__}")
    return block


def saved(kind: type[Block]) -> list[str]:
    """The names of all saved documents of `kind`, sorted."""
    return sorted(saved_at(kind))


def saved_at(kind: type[Block]) -> dict[str, datetime | None]:
    """The names of all saved documents of `kind`, and when each was first saved."""
    with get_client(sync_client=True) as client:
        try:
            documents = client.read_block_documents_by_type(
                block_type_slug=kind.get_block_type_slug(), include_secrets=False
            )
        except ObjectNotFound:
            return {}
    return {document.name: document.created for document in documents if document.name}
