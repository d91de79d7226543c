"""What a GGUF file holds: metadata and tensors.

The layout is that of the GGUF specification, versions 2 and 3 (ggml, docs/gguf.md), little
endian. The ``gguf`` package has a reader too; it makes an array of every string of the
vocabulary and takes six seconds for what takes a fifth of one here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor, still as it is stored.

    Attributes:
        name: GGUF's name.
        kind: A ``gguf.GGMLQuantizationType``.
        data: Shape ``[..., row]``: floats, or the bytes of the row's blocks.
    """

    name: str
    kind: Any
    data: Any


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file, its metadata read and its tensors mapped."""

    metadata: dict[str, Json]
    tensors: tuple[Tensor, ...]


def read(path: Path) -> GgufFile:
    """Read the metadata and map the tensors.

    Raises:
        OSError: There is no such file.
        ValueError: It is not a whole GGUF file; the message says what is wrong.
    """
    import numpy as np

    mapped = np.memmap(path, mode="r").view(np.ndarray)
    cursor = _Cursor(mapped.data)
    try:
        if bytes(cursor.take(4)) != b"GGUF":
            raise ValueError("it does not begin with the letters GGUF")
        version, tensors, keys = cursor.unpack("IQQ")
        if version not in (2, 3):
            raise ValueError(f"it is GGUF version {version}, and 2 and 3 can be read")
        metadata = {cursor.string(): cursor.value(*cursor.unpack("I")) for _ in range(keys)}
        entries = [_entry(cursor) for _ in range(tensors)]
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"its metadata is cut short or damaged ({error})") from error
    alignment = metadata.get("general.alignment", 32)
    start = math.ceil(cursor.at / alignment) * alignment
    return GgufFile(metadata, tuple(_tensor(mapped, start, *entry) for entry in entries))


class _Cursor:
    """A place in the file."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.at = 0

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        taken = self.content[self.at : self.at + count]
        if len(taken) < count:
            raise struct.error("it ends too early")
        self.at += count
        return taken

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """The next numbers."""
        found = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def string(self) -> str:
        """The next string."""
        return str(self.take(*self.unpack("Q")), "utf-8")

    def value(self, kind: int) -> Json:
        """The next value of a kind: a number, a string, or a list of either."""
        if kind in _SCALARS:
            return self.unpack(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise struct.error(f"there is no kind {kind} of value")
        inner, count = self.unpack("IQ")
        if inner in _SCALARS:
            return list(self.unpack(f"{count}{_SCALARS[inner]}"))
        return [self.value(inner) for _ in range(count)]


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape with the row last, kind and offset of the next tensor."""
    name = cursor.string()
    (dimensions,) = cursor.unpack("I")
    shape = cursor.unpack(f"{dimensions}Q")[::-1]
    kind, offset = cursor.unpack("IQ")
    return name, shape, kind, offset


def _tensor(
    mapped: Any, start: int, name: str, shape: tuple[int, ...], kind: int, at: int
) -> Tensor:
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    known = GGMLQuantizationType(kind)
    floats = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
    stored = quant_shape_to_byte_shape(shape, known)
    content = mapped[start + at : start + at + math.prod(stored)]
    if content.size < math.prod(stored):
        raise ValueError(f"it ends before its tensor {name}")
    return Tensor(name, known, content.reshape(stored).view(floats.get(known, np.uint8)))
