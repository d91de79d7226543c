"""Arithmetic: "226-68=" -> "158", with every operand and every result one token.

Source: Nikankin et al. 2025, page 3, its appendix and its code: all problems of the four
operators on operands 0 to 299 whose result is a number of one token, s at most. A sum is strictly
below s, a difference not negative, a quotient an integer, and 0 where the dividend is smaller than
the divisor, which is half of all divisions. Prompts have no spaces and no examples; the answer is
the bare number. The numbers are the same as in the code (s is 999 for Llama 3, 530 for Pythia,
520 for GPT-J); the paper's text has 1000, and 520 for Pythia.

Where we differ: a vocabulary with fewer numbers than the paper's operands (sprout's ends at 198)
has operands up to half of its largest number, so that every sum is a number, the largest
one too; its divisions are by no more than the dividend, as in sprout's language, so that none
has the answer 0 for that reason. Numbers end at 999 for any model: the heuristics of the paper
are about three digits.

A problem is a cluster of its own and an operator a template. Problems come in a random order, the
operators in turn while they have more, two of five for selection and three for evaluation. So any
number of prompts is a prefix of more, and the census has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mechtests.errors import NotApplicable
from mechtests.tasks.assembled import pieces
from mechtests.tasks.grammar import Choices, Grammar, free
from mechtests.tasks.prompts import Ids, Prompts, Task, Tokenizer

OPERATORS = ("+", "-", "*", "/")
"""In the order of their numbers; division is that of integers."""
NAMES = ("addition", "subtraction", "multiplication", "division")
DIVISION = OPERATORS.index("/")
EQUALS = "="

OPERANDS = 300
"""The paper's operands are below."""
LARGEST = 999
SMALLEST = 99
"""A model whose numbers of one token end before this has no problems worth the name."""
CHECKED = 64
"""So many prompts are encoded whole; of the others every number beside its signs."""

RESULTS: tuple[Callable[[Ids, Ids], Ids], ...] = (
    np.add,
    np.subtract,
    np.multiply,
    lambda first, second: first // np.maximum(second, 1),
)


@dataclass(frozen=True, eq=False)
class Legal:
    """Every problem of one operator in a vocabulary: operands and result, each ``[problem]``."""

    first: Ids
    second: Ids
    result: Ids

    def __len__(self) -> int:
        """How many there are."""
        return len(self.result)


@lru_cache(maxsize=16)
def legal(operator: int, largest: int) -> Legal:
    """Every problem of an operator whose numbers are all at most the largest one.

    Args:
        operator: Its place in ``OPERATORS``.
        largest: The largest number s such that 0 to s are one token each.
    """
    paper = largest >= OPERANDS
    size = OPERANDS if paper else largest // 2 + 1
    first, second = np.divmod(np.arange(size * size), size)
    result = RESULTS[operator](first, second)
    allowed = (
        result < largest if paper else result <= largest,
        first >= second,
        result <= largest,
        (second >= 1) & (first >= (1 if paper else second)),
    )[operator]
    return Legal(first[allowed], second[allowed], result[allowed])


@dataclass(frozen=True, eq=False)
class Symbols:
    """The tokens problems are made of.

    Attributes:
        numbers: The token of each number from 0 to the largest, shape ``[number]``.
        operators: The token of each operator, shape ``[operator]``.
        equals: The token of ``=``.
    """

    numbers: Ids
    operators: Ids
    equals: int

    @property
    def largest(self) -> int:
        """The largest number."""
        return len(self.numbers) - 1


def symbols(tokenizer: Tokenizer) -> Symbols:
    """The tokens of numbers and signs, as they are within a problem.

    Raises:
        NotApplicable: A sign, or a number up to 99, is not one token of its own.
    """
    *operators, equals = (_one_token(tokenizer, sign) for sign in (*OPERATORS, EQUALS))
    split = [s for s, t in zip(OPERATORS, operators, strict=True) if t is None]
    if split or equals is None:
        raise NotApplicable(
            f"{tokenizer.name}: signs of arithmetic must be one token each, and "
            f"{pieces(tokenizer, (*split, EQUALS)[0])}; take a model whose tokenizer has them"
        )
    numbers: list[int] = []
    while len(numbers) <= LARGEST:
        token = _one_token(tokenizer, str(len(numbers)))
        if token is None:
            break
        numbers.append(token)
    if len(numbers) <= SMALLEST:
        raise NotApplicable(
            f"{tokenizer.name}: arithmetic needs every number from 0 to {SMALLEST} at least as one "
            f"token, and {pieces(tokenizer, str(len(numbers)))}; take a model whose tokenizer does "
            "not split numbers"
        )
    return Symbols(np.array(numbers), np.array(operators, dtype=np.int64), equals)


def _one_token(tokenizer: Tokenizer, text: str) -> int | None:
    """The token of a text with no space before it, or None where it is not exactly one."""
    ids = tokenizer.encode(text)
    return ids[0] if len(ids) == 1 and tokenizer.decode(ids).strip() == text else None


def generate(tokenizer: Tokenizer, n: int, generator: np.random.Generator) -> Prompts:
    """The first n problems of the generator's sequence, or all there are.

    ``tokens`` has, each ``[prompt]``, ``operator`` (its place in ``OPERATORS``), ``first``,
    ``second`` and ``result`` as numbers, ``largest`` (the largest number of one token, the same
    for all) and ``unseen`` (1 where these operands were kept out of the model's training with
    this operator, as far as is known).

    Raises:
        NotApplicable: A sign, or a number up to 99, is not one token, or is another one
            beside what stands next to it.
    """
    known = symbols(tokenizer)
    return _prompts(tokenizer, known, _problems(known.largest, n, generator))


def _prompts(tokenizer: Tokenizer, known: Symbols, problems: Sequence[Ids]) -> Prompts:
    """The prompts of operator, operands, result, cluster and half, each ``[prompt]``."""
    operator, first, second, result, cluster, half = problems
    middle = [known.numbers[first], known.operators[operator], known.numbers[second]]
    start = [] if tokenizer.bos is None else [np.full(len(first), tokenizer.bos)]
    clean = np.stack([*start, *middle, np.full(len(first), known.equals)], axis=1)
    signs = np.array(OPERATORS)[operator].tolist()
    said = list(zip(map(str, first.tolist()), signs, map(str, second.tolist()), strict=True))
    prompts = Prompts(
        clean=clean,
        length=np.full(len(clean), clean.shape[1]),
        cluster=cluster,
        template=operator,
        half=half,
        texts=tuple(f"{a}{sign}{b}{EQUALS}" for a, sign, b in said),
        right=known.numbers[result][:, None],
        positions={
            name: np.full(len(clean), clean.shape[1] + at)
            for name, at in {"first": -4, "operator": -3, "second": -2, "END": -1}.items()
        },
        tokens={
            "operator": operator,
            "first": first,
            "second": second,
            "result": result,
            "largest": np.full(len(clean), known.largest),
            "unseen": np.array(
                [int(tokenizer.unseen("operands", sign, a, b)) for a, sign, b in said]
            ),
        },
    )
    _check(tokenizer, known, prompts)
    return prompts


def grammar(tokenizer: Tokenizer) -> Grammar:
    """The operator, then the operands of its legal problems, smallest first.

    Raises:
        NotApplicable: A sign, or a number up to 99, is not one token.
    """
    known = symbols(tokenizer)
    seconds = [_seconds(operator, known.largest) for operator in range(len(OPERATORS))]

    def of(chosen: Choices) -> dict[int, list[int]]:
        return seconds[OPERATORS.index(str(chosen["operator"]))]

    def build(every: Sequence[Choices]) -> Prompts:
        operator = np.array([OPERATORS.index(str(each["operator"])) for each in every])
        first = np.array([int(each["first"]) for each in every])
        second = np.array([int(each["second"]) for each in every])
        pairs = zip(operator, first, second, strict=True)
        result = np.array([int(RESULTS[sign](a, b)) for sign, a, b in pairs])
        place = np.arange(len(every))
        return _prompts(tokenizer, known, [operator, first, second, result, place, place % 2])

    slots = {
        "operator": free(OPERATORS),
        "first": lambda chosen: list(of(chosen)),
        "second": lambda chosen: of(chosen).get(int(chosen["first"]), []),
    }
    return Grammar(slots, build)


def _seconds(operator: int, largest: int) -> dict[int, list[int]]:
    """The second operands that are legal with each first one, both ascending."""
    found: dict[int, list[int]] = {}
    every = legal(operator, largest)
    for first, second in zip(every.first.tolist(), every.second.tolist(), strict=True):
        found.setdefault(first, []).append(second)
    return found


def _problems(largest: int, n: int, generator: np.random.Generator) -> list[Ids]:
    """Operator, operands, result, cluster and half of the first n problems, each ``[prompt]``."""
    columns: list[list[Ids]] = []
    before = 0
    for operator in range(len(OPERATORS)):
        every = legal(operator, largest)
        order, turn = generator.permutation(len(every)), np.arange(len(every))
        columns.append(
            [
                turn,
                np.full(len(every), operator),
                *(column[order] for column in (every.first, every.second, every.result)),
                before + order,
                np.isin(turn % 5, (0, 2), invert=True).astype(np.int64),
            ]
        )
        before += len(every)
    turn, operators, *others = (np.concatenate(column) for column in zip(*columns, strict=True))
    rows = np.lexsort((operators, turn))[:n]
    return [column[rows] for column in (operators, *others)]


def _check(tokenizer: Tokenizer, known: Symbols, prompts: Prompts) -> None:
    """Refuse a tokenizer that makes other tokens of a problem's text than those of its parts.

    Every number of a prompt is encoded with the sign before and behind it, and some prompts whole.

    Raises:
        NotApplicable: A text has other tokens.
    """
    skipped = 0 if tokenizer.bos is None else 1
    signs = dict(zip(OPERATORS, known.operators.tolist(), strict=True))
    numbers = known.numbers.tolist()
    operands = np.unique([prompts.tokens["first"], prompts.tokens["second"]]).tolist()
    expected: list[tuple[str, Sequence[int]]] = [
        (f"{EQUALS}{n}", [known.equals, token]) for n, token in enumerate(numbers)
    ]
    for sign, token in signs.items():
        expected += [(f"{n}{sign}", [numbers[n], token]) for n in operands]
        expected += [(f"{sign}{n}{EQUALS}", [token, numbers[n], known.equals]) for n in operands]
    whole = prompts.clean[:CHECKED, skipped:].tolist()
    expected += list(zip(prompts.texts, whole, strict=False))
    for text, ids in expected:
        if tokenizer.encode(text) != ids:
            raise NotApplicable(
                f"{tokenizer.name}: a problem must be one token a number and one a sign, and "
                f"{pieces(tokenizer, text)}; take a model whose tokenizer keeps them apart"
            )


arithmetic = Task(
    name="arithmetic",
    version=1,
    generate=generate,
    sizes={"quick": 8_000, "standard": 230_335, "full": 230_335},
    longest=5,
    grammar=grammar,
)
"""Quick: a sample, about 2,000 problems an operator. Standard and full: the census of the largest
vocabulary, of which smaller ones have less (Pythia 225,686, sprout about 21,000)."""
