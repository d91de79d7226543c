"""Where between the clean and the corrupted embedding gradients are taken."""

from __future__ import annotations

from typing import Literal, get_args

from mechtests.errors import UsageError

Method = Literal["eap", "eap-ig-inputs", "clean-corrupted"]
Path = Literal["corrupted", "clean"]


def shares(method: Method, steps: int = 5, path: Path = "corrupted") -> tuple[float, ...]:
    """The points, as the share of the corrupted embedding in them, most corrupted first.

    A run starts at ``clean + share * (corrupted - clean)``; gradients are averaged over points.

    Args:
        method: ``"eap"``: the clean run alone (Syed et al. 2023). ``"eap-ig-inputs"``: points of
            the straight line between the embeddings (Hanna et al. 2024). ``"clean-corrupted"``:
            both ends of it (the method of that name in the code of EAP-IG).
        steps: Points m of ``"eap-ig-inputs"``; the others have their own number.
        path: Which end of the line is one of its points. ``"corrupted"``: shares 1/m, ..., 1, as
            in the later code of EAP-IG, ``corrupted + k/m (clean - corrupted)`` with k = 0..m-1,
            and in that of Tigges et al. 2024, ``clean + k/m (corrupted - clean)`` with k = 1..m,
            which are the same points. ``"clean"``: shares 0, ..., (m-1)/m, as in the formula of
            Hanna et al. 2024 and their first code, k = 1..m from the corrupted end.

    Raises:
        UsageError: There is no such method or path, or less than one step.
    """
    if method not in get_args(Method) or path not in get_args(Path):
        raise UsageError(
            f"there is no attribution {method!r} along the path {path!r}; methods are "
            f"{', '.join(get_args(Method))}, paths {', '.join(get_args(Path))}"
        )
    if steps < 1:
        raise UsageError(f"attribution needs at least one step, got {steps}")
    if method == "eap":
        return (0.0,)
    if method == "clean-corrupted":
        return (1.0, 0.0)
    first = 1 if path == "corrupted" else 0
    return tuple(k / steps for k in reversed(range(first, first + steps)))
