"""Writes the schema of the format v1 into docs/events.md: `python -m tests.schema`."""

import json
import re
from pathlib import Path
from typing import Any

from blocks._envelope import Envelope

PAGE = Path(__file__).parent.parent / "docs" / "events.md"
COMMAND = "python -m tests.schema"
BEGIN, END = "<!-- the schema of v1: begin -->", "<!-- the schema of v1: end -->"
WIDTH = 100  # characters of a line
SECTION = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)


def made() -> str:
    """The section that the model calls for."""
    return f"```json\n{_shown(Envelope.model_json_schema())}\n```\n"


def _shown(value: Any, indent: str = "", name: str = "") -> str:
    """JSON with a line for whatever fits into one; Pydantic's titles only repeat the names."""
    if isinstance(value, dict):
        value = {n: v for n, v in value.items() if n != "title" or not isinstance(v, str)}
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or len(indent + name + line) < WIDTH:
        return line
    deeper = indent + "  "
    parts = (f'{deeper}"{n}": {_shown(v, deeper, n)}' for n, v in value.items())
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


def written() -> str | None:
    """The section of the page, if it has one."""
    found = SECTION.search(PAGE.read_text())
    return found and found.group()


if __name__ == "__main__":
    PAGE.write_text(SECTION.sub(lambda _: made(), PAGE.read_text()))
