"""IOI in three planted heads whose S-inhibition head speaks of a position, and heads unplugged."""

from __future__ import annotations

import torch

from mechtests.measurement import Head
from tests.planted import IOI_WORDS, NAMES, Stream

POSITIONS = 33


def by_position_stream(
    mover: Head = (2, 5), duplicate: Head = (0, 3), inhibition: Head = (1, 6), *, heads: int = 8
) -> Stream:
    """As ``planted.ioi_stream``, with the position of S where that has its name.

    The duplicate-token head marks S2 with the position at which the name was before; the
    S-inhibition head carries that position to END; the name mover there attends to names that
    are not marked, except at that position.
    """
    names = [IOI_WORDS.encode(f" {name}")[0] for name in NAMES]
    channels = range(len(names))
    stream = Stream(
        tokens=IOI_WORDS.size, positions=POSITIONS, width=64 * heads, heads=heads, layers=3
    )
    rest = len(names) + POSITIONS
    places = range(1, POSITIONS)  # BOS, where a head rests, says nothing
    marked = {p: stream.free(p) for p in places}
    inhibited = {p: stream.free(POSITIONS + p) for p in places}
    not_itself = {len(names) + p: stream.position(p) for p in range(POSITIONS)}
    stream.plant(
        duplicate,
        query={c: {names[c]: 40.0} for c in channels}
        | {c: {at: 60.0} for c, at in not_itself.items()},
        key={c: {names[c]: 1.0} for c in channels}
        | {c: {at: -1.0} for c, at in not_itself.items()}
        | {rest: {0: 20.0}},
        value={p: {stream.position(p): 1.0} for p in places},
        output=marked,
        constant=rest,
    )
    stream.plant(
        inhibition,
        query={},
        key={rest: dict.fromkeys(marked.values(), 60.0) | {0: 20.0}},
        value={p: {marked[p]: 1.0} for p in places},
        output=inhibited,
        constant=rest,
    )
    stream.plant(
        mover,
        query={p: {inhibited[p]: -100.0} for p in places},
        key={p: {stream.position(p): 1.0} for p in places}
        | {rest: dict.fromkeys(names, 40.0) | {0: 15.0} | dict.fromkeys(marked.values(), -60.0)},
        value={c: {names[c]: 1.0} for c in channels},
        output=dict(zip(channels, names, strict=True)),
        constant=rest,
        gain=3.0,
    )
    return stream


def unplugged(stream: Stream, head: Head) -> Stream:
    """The stream with a head that attends as before and writes nothing."""
    layer, index = head
    size = stream.width // stream.heads
    with torch.no_grad():
        written = stream.model.transformer.h[layer].attn.c_proj.weight
        written[index * size : (index + 1) * size] = 0.0
    return stream


def doubled(stream: Stream, source: Head, target: Head) -> Stream:
    """The stream with a second head, in the same layer, that does what the first one does."""
    (layer, first), (other, second) = source, target
    assert layer == other
    size = stream.width // stream.heads
    here, there = (slice(each * size, (each + 1) * size) for each in (first, second))
    attention = stream.model.transformer.h[layer].attn
    with torch.no_grad():
        for part in attention.c_attn.weight.chunk(3, dim=1):
            part[:, there] = part[:, here]
        for part in attention.c_attn.bias.chunk(3):
            part[there] = part[here]
        attention.c_proj.weight[there] = attention.c_proj.weight[here]
    return stream
