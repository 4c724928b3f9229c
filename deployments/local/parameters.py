"""The parameters of a run, held against what its deployment says that it takes."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from prefect.client.schemas.responses import DeploymentResponse
from prefect.utilities.schema_tools.validation import validate

from blocks.errors import ConfigError


def check_parameters(deployment: DeploymentResponse, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown parameter, a missing one, or one of a wrong type.

    The server itself lets unknown ones pass: their run would fail only once its engine is up.
    """
    schema = deployment.parameter_openapi_schema
    if not deployment.enforce_parameter_schema or not schema:
        return
    known = schema.get("properties", {})
    for name in parameters:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"{deployment.name} takes no parameter {name!r}{hint}; "
                f"it takes {', '.join(known) or 'none'}"
            )
    given = {**deployment.parameters, **parameters}
    for name in schema.get("required", []):
        if name not in given:
            raise ConfigError(
                f"{deployment.name} needs the parameter {name!r} ({_wanted(known[name])}): "
                f"""add it, as in --parameters '{{"{name}": …}}'"""
            )
    for error in validate(given, schema):
        where = error.json_path.removeprefix("$.")
        kind = _wanted(dict(error.schema)) if isinstance(error.schema, Mapping) else ""
        why = f"it must be {kind}" if error.validator in ("type", "anyOf") else error.message
        value = json.dumps(error.instance)
        raise ConfigError(f"{deployment.name}: the parameter {where!r} is {value}; {why}")


def _wanted(schema: Mapping[str, Any]) -> str:
    """A JSON schema's types in words: `string`, `array of string or null`."""
    if "anyOf" in schema:
        return " or ".join(_wanted(one) for one in schema["anyOf"])
    kind = str(schema.get("type", "any value"))
    return f"{kind} of {_wanted(schema['items'])}" if schema.get("items") else kind
