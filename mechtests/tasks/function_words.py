"""English words and marks that carry grammar and no topic: no head is asked to suppress them."""

from __future__ import annotations

from mechtests.tasks.prompts import Tokenizer

_WORDS = """
    a an the this that these those such some any each every both all most much many more few
    i me my you your he him his she her it its we us our they them their who whom whose which what
    of to in on at by for with from about as into over under between through during before after
    and or but nor so yet if then than because while when where how though although however thus
    is am are was were be been being do does did have has had will would can could shall should
    may might must not no only also very just too almost once now there here like perhaps
"""
WORDS = frozenset(_WORDS.split())
MARKS = frozenset((".", ",", "?", "!", ":", ";", "'", '"', "'s", "-", "(", ")"))


def is_function_word(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token is one of these words in any case, a mark, white space, or BOS.

    A word that a tokenizer splits is not found: its pieces are tokens of their own.
    """
    if token == tokenizer.bos:
        return True
    text = tokenizer.decode([token]).strip()
    return not text or text in MARKS or text.lower() in WORDS
