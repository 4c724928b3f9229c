"""What tests ask about the blocks of the registry and the types of their fields."""

from types import UnionType
from typing import Any, Union, get_args, get_origin

from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import BaseModel, SecretBytes, SecretStr

import blocks

EACH: list[type[Block]] = [getattr(blocks, name) for name in blocks.__all__]
SECRETS = (SecretStr, SecretBytes, SecretDict)


def parts(annotation: Any) -> list[Any]:
    """The members of a union, or the one type."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in parts(member)]
    return [annotation]


def secret(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, SECRETS)


def holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(holds_secret(f.annotation) for f in annotation.model_fields.values())
    return secret(annotation) or any(holds_secret(a) for a in get_args(annotation))
