"""The reference is made of what the code says, and the committed page is what it says now."""

from __future__ import annotations

import inspect

import mechtests
from docs import reference
from tests.docs_pages import DOCS


def test_the_committed_page_is_up_to_date() -> None:
    assert (DOCS / "reference.md").read_text("utf-8") == reference.page(), "run make docs"


def test_every_name_of_the_package_is_in_it() -> None:
    assert set(mechtests.__all__) - {"__version__"} <= set(reference.PUBLIC["mechtests"])


def test_arguments_are_shown_without_types_and_methods_by_their_first_line() -> None:
    class Thing:
        """A thing."""

        def of(self, size: int = 3, *, kind: object = inspect) -> str:
            """What it is of.

            More.
            """
            return f"{size}{kind}"

        @property
        def long(self) -> bool:
            """Whether it is ``long``."""
            return True

        def _hidden(self) -> None:
            """Not shown."""

    said = list(reference._methods(Thing))
    assert said == [
        "- `.of(size=3, *, kind=Ellipsis)`: What it is of.\n",
        "- `.long`: Whether it is `long`.\n",
    ]


def test_sections_of_a_docstring_become_lists() -> None:
    doc = "Do.\n\nArgs:\n    one: The first,\n        and more.\n\nRaises:\n    Error: No."
    expected = "Do.\n\n*Args*\n\n- `one`: The first,\n  and more.\n\n*Raises*\n\n- `Error`: No."
    assert reference._docstring(doc) == expected
