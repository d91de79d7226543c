"""First names, and which of them are one token for a tokenizer."""

from __future__ import annotations

from mechtests.errors import NotApplicable
from mechtests.tasks.prompts import Tokenizer

FEWEST = 20
"""With fewer names, prompts of one template repeat themselves."""

_NAMES = """
    Aaron Adam Adrian Alan Albert Alex Alice Allison Amanda Amber Amy Andrea Andrew Angela Anna
    Anne Anthony Arthur Ashley Barbara Benjamin Beth Betty Bob Brandon Brenda Brian Bruce Carl
    Carol Caroline Catherine Charles Charlie Charlotte Chris Christina Christopher Claire Colin
    Craig Cynthia Daniel David Deborah Dennis Diana Diane Donald Donna Dorothy Douglas Dylan
    Edward Eleanor Elizabeth Ellen Emily Emma Eric Ethan Eva Frances Gary George Gordon Graham
    Greg Gregory Hannah Harold Harry Heather Helen Henry Howard Ian Isaac Jack Jacob James Jamie
    Jane Janet Jason Jeff Jennifer Jeremy Jerry Jesse Jessica Jim Joan Joe John Jonathan Joseph
    Joshua Julia Julie Justin Karen Kate Katherine Katie Keith Kelly Kenneth Kevin Kyle Larry Laura
    Lauren Lawrence Leonard Lewis Linda Lisa Louis Louise Lucy Luke Margaret Maria Marie Martha
    Martin Mary Matthew Max Megan Melissa Michael Michelle Nancy Nathan Neil Nicholas Nick Nicole
    Nina Oliver Pamela Patricia Patrick Paul Peter Philip Rachel Ralph Raymond Rebecca Richard
    Robert Roger Ronald Roy Russell Ruth Ryan Sally Sam Samantha Samuel Sandra Sara Sarah Scott
    Sean Sharon Simon Sophie Stephanie Stephen Steve Steven Stuart Susan Taylor Thomas Tim Timothy
    Todd Tom Tony Tyler Vincent Walter Wendy William
"""

FIRST_NAMES: tuple[str, ...] = tuple(_NAMES.split())


def single_token_names(tokenizer: Tokenizer) -> dict[str, int]:
    """The names that are one token with a space before them, and that token's id.

    Raises:
        NotApplicable: There are fewer than 20; the message names some that split.
    """
    encoded = {name: tokenizer.encode(f" {name}") for name in FIRST_NAMES}
    kept = {
        name: ids[0]
        for name, ids in encoded.items()
        if len(ids) == 1 and tokenizer.decode(ids).strip() == name
    }
    if len(kept) < FEWEST:
        split = [f"{name!r} ({len(ids)})" for name, ids in encoded.items() if name not in kept]
        raise NotApplicable(
            f"{tokenizer.name}: only {len(kept)} of {len(FIRST_NAMES)} first names are one token "
            f"and {FEWEST} are needed; tokens of some others: {', '.join(split[:4])}; "
            "take a model whose tokenizer knows names, or give prompts of your own as a CSV"
        )
    return kept
