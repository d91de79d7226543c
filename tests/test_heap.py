"""The C library's thresholds while many tensors come and go."""

from __future__ import annotations

import sys

import pytest

from mechtests.models import heap


class Library:
    """A C library that keeps what it was told."""

    def __init__(self) -> None:
        self.said: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        self.said[parameter] = value
        return 1


def test_nothing_is_trimmed_inside_and_it_is_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Library()
    monkeypatch.setattr(heap, "_glibc", lambda: library)
    with pytest.raises(ValueError, match="inside"), heap.kept():  # noqa: PT012
        assert library.said[heap.TRIM_THRESHOLD] == heap.NEVER
        raise ValueError("inside")
    assert library.said[heap.TRIM_THRESHOLD] == heap.USUAL_TRIM


def test_without_glibc_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    done = []
    with heap.kept():
        done.append(1)
    assert done


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_glibc_takes_these_values() -> None:
    library = heap._glibc()
    if library is None:
        pytest.skip("the C library is not glibc")
    with heap.kept():
        assert library.mallopt(heap.TRIM_THRESHOLD, heap.NEVER) == 1
        assert library.mallopt(heap.MMAP_THRESHOLD, heap.LARGEST_MMAP) == 1
