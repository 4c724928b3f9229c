"""How Spark is told its settings: a Java properties file, and the spelling of values in it."""

from blocks.errors import ConfigError


def properties_text(properties: dict[str, str]) -> str:
    """A Java properties file (java.util.Properties.load): sorted, exact for any text."""
    return "".join(
        f"{_escaped(name, key=True)}={_escaped(value)}\n"
        for name, value in sorted(properties.items())
    )


def _escaped(text: str, *, key: bool = False) -> str:
    out = []
    for index, char in enumerate(text):
        if char in "\\\n\r\t" or (key and char in " :=#!"):
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, "\\" + char))
        elif char == " " and index == 0:
            out.append("\\ ")
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out.extend(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return "".join(out)


def spelled(value: str | float | bool) -> str:
    """A value as Spark spells it: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def joined(field: str, values: list[str]) -> str | None:
    """A list as Spark spells it, None for an empty one; raises ConfigError for what it cannot."""
    for value in values:
        if "," in value:
            raise ConfigError(f"{field} holds {value!r}: Spark cannot express a comma in a path")
    return ",".join(values) or None
