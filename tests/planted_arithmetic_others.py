"""Networks that add and subtract without heuristics: by Fourier sums, by digits, by heart."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from mechtests.sprout.numbers import LARGEST
from tests.planted_arithmetic_frame import Frame, Planted
from tests.planted_arithmetic_problems import MINUS, OPERANDS, PLUS, problems

FREQUENCIES = (1, 3, 7, 13, 22, 31, 45, 58, 67, 79, 88, 97)
PERIOD = 211
"""No sum wraps around it."""
SIGNING = 3
SHARP = 60.0
"""How much higher the logit of the right result is than that of a random one."""


def planted_fourier(seed: int = 0) -> Planted:
    """Results are found where waves of the operands add up.

    With operand 2 signed (its sines turned around in a subtraction), the neurons of all late
    layers are ``relu(cos(w a + phase) + cos(w b + phase))`` with random phases: their sum
    against ``cos(2 phase)`` and ``sin(2 phase)`` is the wave of a + b, up to a factor. So every
    neuron does as much as every other.
    """
    count = 2 * len(FREQUENCIES)
    frame = Frame(
        1 + _waves(torch.arange(OPERANDS)),
        {"signed": count, "answer": count},
        _waves(torch.arange(LARGEST + 1)),
        width=192,
        operators=(0, 1, 2, 3),
        mlp_width=800,
        seed=seed,
    )
    _sign_waves(frame)
    late = range(frame.layers // 2, frame.layers)
    for layer in late:
        _wave_neurons(frame, layer, frame.mlp_width // len(FREQUENCIES), len(late))
    return Planted(frame.made())


def _waves(numbers: Tensor) -> Tensor:
    """Cosine and sine of each frequency, ``[number, 2 frequency]``."""
    angles = numbers[:, None] * torch.tensor(FREQUENCIES) * 2 * math.pi / PERIOD
    return torch.stack((angles.cos(), angles.sin()), 2).flatten(1)


def _sign_waves(frame: Frame) -> None:
    """Operand 2 as in a sum, 1 + cos and 1 + sin; as in a difference, 1 + cos and 1 - sin."""
    count = 2 * len(FREQUENCIES)
    eye, operator = torch.eye(count), frame.rows("operator", torch.eye(2))
    sines = torch.arange(count) % 2 == 1
    turned = torch.where(sines, -1.0, 1.0)[:, None]
    add = frame.rows("second", eye) + 2 * operator[PLUS]
    subtract = frame.rows("second", eye) * turned + 2 * operator[MINUS]
    bias = torch.cat((torch.full((count,), -2.0), torch.where(sines, 0.0, -2.0)))
    writes = frame.rows("signed", eye)
    frame.neurons(SIGNING, torch.cat((add, subtract)), bias, torch.cat((writes, writes)))


def _wave_neurons(frame: Frame, layer: int, many: int, layers: int) -> None:
    for at in range(len(FREQUENCIES)):
        phase = 2 * math.pi * (torch.arange(many) + torch.rand(1, generator=frame.generator)) / many
        wave = torch.zeros(many, 2 * len(FREQUENCIES))
        wave[:, 2 * at], wave[:, 2 * at + 1] = phase.cos(), -phase.sin()
        # features are 1 + cos and 1 + sin, of both operands
        bias = -2 * wave.sum(1)
        reads = frame.rows("first", wave) + frame.rows("signed", wave)
        wave[:, 2 * at], wave[:, 2 * at + 1] = (2 * phase).cos(), -(2 * phase).sin()
        strength = SHARP / many / layers / math.sqrt(len(FREQUENCIES))
        frame.neurons(layer, reads, bias, frame.rows("answer", strength * wave))


DIGITS = 10
WRITING = 20.0
DENSE = 2000


def planted_digits(seed: int = 0) -> Planted:
    """Results are found digit by digit, with a carry, by layers whose neurons all take part.

    Layer 4 finds the last digit, the carry, and the sum (or difference) of the tens; layer 5
    adds the carry to the tens. Each step is a random layer of neurons, read out so that what is
    written is right for every combination of digits.
    """
    numbers = torch.arange(LARGEST + 1)
    tens = torch.eye(DIGITS * 2)[numbers // DIGITS]
    frame = Frame(
        torch.cat(
            [torch.eye(DIGITS)[numbers[:100] % 10], torch.eye(DIGITS)[numbers[:100] // 10]], 1
        ),
        {"signed": 4 * DIGITS, "digit": DIGITS, "carry": 1, "tens": 30, "answer": 3 * DIGITS},
        torch.cat([torch.eye(DIGITS)[numbers % DIGITS], tens], 1),
        width=224,
        seed=seed,
    )
    _sign_digits(frame)
    _add_digits(frame)
    _add_carry(frame)
    return Planted(frame.made())


def _sign_digits(frame: Frame) -> None:
    """Both digits of operand 2, apart for sums and for differences."""
    eye, operator = torch.eye(2 * DIGITS), frame.rows("operator", torch.eye(2))
    reads = torch.cat([frame.rows("second", eye) + operator[each] for each in (PLUS, MINUS)])
    writes = frame.rows("signed", torch.eye(4 * DIGITS))
    frame.neurons(SIGNING, reads, torch.full((len(reads),), -1.0), writes)


def _add_digits(frame: Frame) -> None:
    """Last digit and carry of the last digits; sum or difference of the tens, from -1 to 28."""
    units: list[tuple[Tensor, int, int]] = []
    tens: list[tuple[Tensor, int, int]] = []
    for operator, a, b in product((PLUS, MINUS), range(DIGITS), range(DIGITS)):
        total = a + b if operator == PLUS else a - b
        for rows, offset in ((units, 0), (tens, DIGITS)):
            stream = torch.zeros(frame.width)
            stream[frame.room["first"][offset + a]] = 1.0
            stream[frame.room["signed"][2 * DIGITS * operator + offset + b]] = 1.0
            rows.append((stream, total, total // DIGITS))
    streams, totals, carries = _columns(units)
    last = frame.rows("digit", torch.eye(DIGITS)[totals % DIGITS])
    _dense(frame, 4, streams, last + frame.rows("carry", carries[:, None].float()))
    streams, totals, _ = _columns(tens)
    legal = totals >= 0
    wanted = frame.rows("tens", torch.eye(30)[totals.clamp(min=0)])
    _dense(frame, 4, streams[legal], wanted[legal])


def _columns(rows: list[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    streams, totals, carries = zip(*rows, strict=True)
    return torch.stack(streams), torch.tensor(totals), torch.tensor(carries)


def _add_carry(frame: Frame) -> None:
    """The tens of the result, from the tens and a carry of -1, 0 or 1; the last digit as it is."""
    streams, results = [], []
    for total, carry in product(range(2 * DIGITS - 1), (-1, 0, 1)):
        if total + carry >= 0:
            stream = torch.zeros(frame.width)
            stream[frame.room["tens"][total]] = 1.0
            stream[frame.room["carry"]] = carry
            streams.append(stream)
            results.append(DIGITS + total + carry)
    wanted = frame.rows("answer", WRITING * torch.eye(3 * DIGITS)[results])
    _dense(frame, 5, torch.stack(streams), wanted)
    last = frame.rows("digit", torch.eye(DIGITS))
    answer = frame.rows("answer", WRITING * torch.eye(3 * DIGITS)[:DIGITS])
    _dense(frame, 5, last, answer)


def _dense(frame: Frame, layer: int, streams: Tensor, wanted: Tensor) -> None:
    """Random neurons that read what streams have, written out so that each gives what is wanted.

    Of all that do, the least: the ridge is against noise in the streams.
    """
    used = (streams != 0).any(0)
    reads = torch.randn(DENSE, frame.width, generator=frame.generator) * used
    bias = torch.randn(DENSE, generator=frame.generator)
    hidden = torch.relu(streams @ reads.T + bias).double()
    ridge = 1e-3 * DENSE * torch.eye(len(hidden), dtype=torch.float64)
    writes = hidden.T @ torch.linalg.solve(hidden @ hidden.T + ridge, wanted.double())
    frame.neurons(layer, reads, bias, writes.float())


CODE = 24
ANSWER_CODE = 40


def planted_lookup(seed: int = 0) -> Planted:
    """Each problem has a neuron of its own, which writes its answer.

    Numbers are codes of 24 bits, half of them 1; the neuron of a problem counts the bits that
    operands and operator share with it, and is active where none is missing.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    numbers = _codes(generator)
    answers = torch.randn(LARGEST + 1, ANSWER_CODE, generator=generator)
    answers /= answers.norm(dim=1, keepdim=True)
    frame = Frame(numbers, {"answer": ANSWER_CODE}, answers, width=192, seed=seed)
    known = problems(PLUS, MINUS)
    late = range(frame.layers // 2, frame.layers)
    order = torch.randperm(len(known), generator=generator)
    operator = frame.rows("operator", CODE / 2 * torch.eye(2))
    for layer, rows in zip(late, order.chunk(len(late)), strict=True):
        first, second, signs, results = (
            torch.from_numpy(each)[rows]
            for each in (known.first, known.second, known.operator, known.result)
        )
        reads = frame.rows("first", numbers[first]) + frame.rows("second", numbers[second])
        bias = torch.full((len(rows),), 1.0 - 3 * CODE / 2)
        writes = frame.rows("answer", WRITING * answers[results])
        frame.neurons(layer, reads + operator[signs], bias, writes)
    return Planted(frame.made())


def _codes(generator: torch.Generator) -> Tensor:
    """100 codes with 12 bits of 24, of which no two share more than 10, ``[number, bit]``."""
    found: list[Tensor] = []
    while len(found) < OPERANDS:
        code = torch.zeros(CODE)
        code[torch.randperm(CODE, generator=generator)[: CODE // 2]] = 1.0
        if all(float(code @ other) <= CODE / 2 - 2 for other in found):
            found.append(code)
    return torch.stack(found)
