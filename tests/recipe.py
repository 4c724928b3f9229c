"""The steps of CONTRIBUTING, read and followed to the letter."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

# A line that names a file, and right below it what goes there.
BLOCK = re.compile(
    r"^`(?P<path>[^`\n]+)`:\n(?P<fence>`{3,})(?P<kind>\w+)\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """What a step writes to one file: all of it, or lines that go after others."""

    path: str
    kind: str
    text: str

    def apply(self, checkout: Path) -> None:
        """Write it; raises ValueError for a line to go after that the file does not have."""
        path = checkout / self.path
        path.write_text(patched(path.read_text(), self.text) if self.kind == "diff" else self.text)


def patched(text: str, diff: str) -> str:
    """`text` with the added lines of `diff`, each after the line of `text` shown above it."""
    lines, at = text.splitlines(), 0
    for line in diff.splitlines():
        if line.startswith("+"):
            lines.insert(at, line[1:])
        else:
            at = lines.index(line[1:], at)
        at += 1
    return "\n".join(lines) + "\n"


def steps() -> dict[int, list[Block]]:
    """The blocks of each step, by its number."""
    _, *parts = re.split(r"^### (\d+)\. ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    return {
        int(number): [Block(b["path"], b["kind"], b["text"]) for b in BLOCK.finditer(step)]
        for number, step in zip(parts[::2], parts[1::2], strict=True)
    }


def without_blocks(page: str) -> str:
    """The page without the files that it shows."""
    return BLOCK.sub("", page)
