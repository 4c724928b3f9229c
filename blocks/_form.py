"""How the Prefect UI's form shows a block: said once, in the JSON schema of its fields."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.fields import ComputedFieldInfo, FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


def _title(name: str, _: FieldInfo | ComputedFieldInfo) -> str:
    return name.replace("_", " ").capitalize()


class Form(BaseModel):
    """Stands before Block in the bases of every block.

    A field that may be None becomes one box that may stay empty, and its secret is masked; with
    Pydantic's `anyOf` the form would ask for a type first. Examples join the description, because
    the form shows nothing else. A block's own fields come before those it shares with others.
    """

    model_config = ConfigDict(field_title_generator=_title)

    @classmethod
    def __dispatch_key__(cls) -> str:
        """What Prefect looks a block's class up by: its slug.

        Prefect makes the whole schema of every class, twice, to take the same slug from it: a
        third of what importing our blocks would cost.
        """
        slug: str = cls.get_block_type_slug()  # type: ignore[attr-defined]  # Block's
        return slug

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema)["properties"].values():
            _one_box(field)
            if examples := field.get("examples"):
                told = ", ".join(_spelled(example) for example in examples)
                field["description"] += f" For example: {told}"
        return schema

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """The schema, with the positions that Prefect gave in the order the form should have."""
        schema = super().model_json_schema(*args, **options)
        above = [name for kind in cls.__mro__ for name in vars(kind).get("__annotations__", {})]
        ordered = [name for name in dict.fromkeys(above) if name in cls.model_fields]
        for position, name in enumerate(ordered):
            schema["properties"][name]["position"] = position
        return schema


def _one_box(field: JsonSchemaValue) -> None:
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del field["anyOf"]
        field.update(kinds[0])
    if field.get("default", ...) is None:
        del field["default"]


def _spelled(example: Any) -> str:
    if isinstance(example, list):
        return ", ".join(_spelled(item) for item in example)
    return example if isinstance(example, str) else json.dumps(example)
