"""The C library's heap, kept while many large tensors come and go.

glibc gives the memory of a large freed tensor back to the kernel, and the next one of its size
costs a page fault for every 4 kB of it, which the kernel fills with zeros. Runs that make and
free hundreds of megabytes a second spend a part of their time on that alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""
NEVER = 2**31 - 1
LARGEST_MMAP, USUAL_TRIM = 2**25, 2**26
"""What glibc's own thresholds grow to at most on 64 bits; it refuses a larger one for mmap."""


@contextmanager
def kept() -> Iterator[None]:
    """Inside, freed memory stays with the process; after it, the next large one freed goes back.

    Nothing happens where the C library is not glibc. It is for the whole process: threads that
    allocate meanwhile keep their memory too.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(TRIM_THRESHOLD, NEVER)
    library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP)
    try:
        yield
    finally:
        library.mallopt(TRIM_THRESHOLD, USUAL_TRIM)


@cache
def _glibc() -> Any:
    """The C library of this process where it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (there or not)
        return library if library.mallopt else None
    except (OSError, AttributeError, TypeError):
        return None
