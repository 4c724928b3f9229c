"""What a channel tells people: which messages it hears, and the note it makes of one.

    Message ──► kind() ──► heard? ──► note() ──► SlackChannel, MailChannel

A message is for programs, a note for people: a line that says it all, then what helps to mend it.
"""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

from prefect.utilities.urls import url_for
from pydantic import Field

from blocks._form import Form
from blocks._match import Match
from blocks._messages import Message

Kind = Literal["success", "failure", "retry", "late"]

ERROR = 1000  # characters that are shown of an error
LINES, LINE = 10, 200  # last lines of a log, and characters of one

_IDS = UUID("6f6a0d4e-0d0a-5f0c-9a5c-5c1f0f6b7d21")  # of this project: ids made from it are ours


class Channel(Form, Match):
    """Fields and questions that every channel has. How it sends is its own."""

    hears: list[Kind] = Field(
        default=["success", "failure", "retry", "late"],
        description="What it tells: that a run succeeded, failed, tries a task again, or is late.",
    )
    give_up_after: float = Field(
        default=72.0, gt=0, description="Hours for which a note is tried again and again."
    )

    @property
    def explains(self) -> bool:
        """Whether it shows why a run failed: its task, the last lines of its log."""
        return True

    def wants(self, message: Message) -> bool:
        """Whether it tells of this message, once its run matches."""
        return kind(message) in self.hears


@dataclass(frozen=True)
class Note:
    """What people read. Every text is printable; only `error` has more lines than one."""

    subject: str
    facts: tuple[tuple[str, str], ...]  # what, which
    error: str
    log: tuple[str, ...]
    link: str | None

    @property
    def text(self) -> str:
        """All of it but the subject, as plain text."""
        parts = ["\n".join(f"{what}: {which}" for what, which in self.facts)]
        if self.error:
            parts.append(self.error)
        if self.log:
            parts.append("\n".join(["The last log lines:", *self.log]))
        if self.link:
            parts.append(self.link)
        return "\n\n".join(parts) + "\n"


def kind(message: Message) -> Kind | None:
    """What happened, as people choose it; None for what is for programs only.

    A run that starts is not among them: no message tells it apart from any other step of a task.
    The end of a child run is told by the root's.
    """
    match message.route, message.state:
        case "progress", "success":
            return "success"
        case "progress", "failed":
            return "failure"
        case "status", "up_for_retry":
            return "retry"
        case "late", _:
            return "late"
    return None


def note(message: Message, link: str | None) -> Note:
    """What people read of `message`; the same message always makes the same note."""
    names, failure = message.names, message.failure
    task = (failure.task if failure else None) or message.task
    what = {
        "success": "succeeded",
        "failure": f"failed in {task}" if task else "failed",
        "retry": f"will try {task} again",
        "late": "is late",
    }.get(kind(message) or "", message.state)
    facts = {
        "Deployment": names.deployment,
        "Flow": names.flow,
        "Run": names.run_id,
        "State": message.state,
        "Task": task,
        "Started by": names.by,
        "At": message.at,
    }
    return Note(
        subject=_one_line(f"{names.dag_id} {what}", LINE),
        facts=tuple((name, _one_line(fact, LINE)) for name, fact in facts.items() if fact),
        error=_printable(_cut(message.error.strip(), ERROR)),
        log=tuple(_one_line(line, LINE) for line in (failure.log[-LINES:] if failure else ())),
        link=link,
    )


def link(message: Message) -> str | None:
    """Where Prefect's UI shows the run; None where no UI is known. Read from the settings now."""
    run = message.run or message.names.root
    return url_for("flow-run", obj_id=run) or None if run else None


def lasting_id(*parts: str) -> UUID:
    """An id that is the same whoever makes it of the same parts, on whichever machine."""
    return uuid5(_IDS, "\n".join(parts))


def _one_line(text: str, most: int) -> str:
    return _cut(" ".join(_printable(text).split()), most)


def _printable(text: str) -> str:
    # Line by line: neither control characters, colours of a terminal, nor half a character.
    lines = text.splitlines()
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
