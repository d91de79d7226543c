"""Text of a fixed width, line by line, with and without colour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from textwrap import wrap
from typing import TYPE_CHECKING, TextIO

from mechtests.reporting.wording import ascii_only

if TYPE_CHECKING:
    from rich.table import Table

LABEL = 11  # the width of "reproduce" and its gap


class Page:
    """Text of a fixed width that grows line by line."""

    def __init__(self, width: int, color: bool, ascii: bool) -> None:
        from rich.console import Console

        self.width = width
        self.ascii = ascii
        self._file = StringIO()
        self._console = Console(
            file=self._file,
            width=width,
            force_terminal=color,
            color_system="standard" if color else None,
            no_color=not color,
            legacy_windows=False,
            force_jupyter=False,
            markup=False,
            emoji=False,
            highlight=False,
        )

    @property
    def text(self) -> str:
        """Everything said, without blanks at the ends of lines."""
        text = self._file.getvalue()
        text = ascii_only(text) if self.ascii else text
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"

    def say(
        self, text: str, *, head: str = "", style: str = "", at: int = 0, then: int | None = None
    ) -> None:
        """A paragraph at a column, its further lines at another; ``style`` is the head's."""
        text = f"{head}{text}"
        text = ascii_only(text) if self.ascii else text
        text = re.sub(r"\[[^][]{,40}\]", lambda interval: interval[0].replace(" ", "\xa0"), text)
        after = " " * (at if then is None else then)
        lines = wrap(
            text,
            self.width,
            initial_indent=" " * at,
            subsequent_indent=after,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self._print("\n".join(lines).replace("\xa0", " "), at, len(head), style)

    def unbroken(self, text: str, *, head: str = "", at: int = 0) -> None:
        """A line that is pasted somewhere, so it is never broken."""
        self._print(" " * at + head + text, at, len(head), "dim")

    def table(self, table: Table) -> None:
        """A table that was made for this width."""
        self._console.print(table)

    def label(self, label: str, text: str) -> None:
        """A labelled paragraph of a verdict."""
        self.say(text, head=label.ljust(LABEL), style="dim", at=4, then=4 + LABEL)

    @property
    def room(self) -> int:
        """How wide a labelled line's text can be."""
        return self.width - 4 - LABEL

    def picture(self, label: str, lines: Sequence[str]) -> None:
        """Labelled lines whose blanks count, so they are printed as they are."""
        for index, line in enumerate(lines):
            self.unbroken(line, head=("" if index else label).ljust(LABEL), at=4)

    def _print(self, text: str, at: int, head: int, style: str) -> None:
        from rich.text import Text

        said = Text(text)
        said.stylize(style, at, at + head)
        self._console.print(said, soft_wrap=True)


def encodes(stream: TextIO, text: str) -> bool:
    """Whether a stream can show a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
