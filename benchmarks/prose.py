"""English text that every Python carries: the topics of its documentation, as plain text.

    python benchmarks/prose.py FILE

Written for ``--mech-prompts text=FILE`` where no text of one's own is at hand; markup and code
blocks are left out, and a paragraph is a line.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from pydoc_data.topics import topics

FEWEST_WORDS = 30


def paragraphs() -> list[str]:
    """The paragraphs of prose, in the order of the topics' names."""
    blocks = [block for name in sorted(topics) for block in topics[name].split("\n\n")]
    lines = [" ".join(block.split()) for block in blocks if not block.startswith("    ")]
    plain = [re.sub(r"[*`|\"]+", "", line).strip() for line in lines]
    prose = [line for line in plain if line.endswith(".") and not re.search(r"::=|>>>", line)]
    return list(dict.fromkeys(line for line in prose if len(line.split()) >= FEWEST_WORDS))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    found = paragraphs()
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    asked.file.write_text("\n\n".join(found) + "\n", encoding="utf-8")
    print(f"{asked.file}: {len(found)} paragraphs")


if __name__ == "__main__":
    main()
