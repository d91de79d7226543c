"""A methods paragraph with its numbers, and the BibTeX of every paper judged, ready to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mechtests.errors import UsageError
from mechtests.reporting.json_values import Json
from mechtests.reporting.papers import PAPERS, TOOL
from mechtests.reporting.record import LEVEL, Record
from mechtests.reporting.records import in_a_family, installed_versions
from mechtests.verdict import Outcome

UNCITED = "sanity"
NUMBERS = ("torch", "transformers", "transformer-lens")
"""Packages whose versions a reader needs to get the numbers again."""


def methods(
    records: Sequence[Record],
    header: Mapping[str, Json] | None = None,
    *,
    bibtex: Mapping[str, str] | None = None,
) -> str:
    """The paragraph, and after it the BibTeX of what it cites.

    Args:
        records: The records of one run, corrected by family.
        header: What the run's ``run.json`` says; its versions are the run's own.
        bibtex: Entries of further papers, by the key that their claims' ids begin with.

    Raises:
        UsageError: There is no record, or they are of several profiles or seeds.
    """
    known = {**_entries(), **(bibtex or {})}
    return f"{paragraph(records, header)}\n\n{references(records, header, known)}\n"


def paragraph(records: Sequence[Record], header: Mapping[str, Json] | None = None) -> str:
    """What was judged, on what, how, and what came out, in sentences with citations.

    Arguments and errors as for ``methods``.
    """
    judged = [record for record in records if record.claim.paper != UNCITED]
    if not judged:
        raise UsageError("a methods paragraph needs the record of a claim of a paper, got none")
    _check(judged)
    return " ".join(
        [_what(judged, header), _measured(judged), _decided(judged), _families(judged),
         *_reservations(judged), _outcome(judged)]
    )  # fmt: skip


def references(
    records: Sequence[Record],
    header: Mapping[str, Json] | None = None,
    known: Mapping[str, str] | None = None,
) -> str:
    """The BibTeX of every paper judged and of mechtests itself."""
    entries = _entries() if known is None else known
    papers = dict.fromkeys(r.claim.paper for r in records if r.claim.paper != UNCITED)
    found = [entries.get(each, f"% {each}: no BibTeX is known of this paper") for each in papers]
    return "\n\n".join([*found, TOOL.format(version=_versions(header).get("mechtests") or "?")])


def _entries() -> dict[str, str]:
    return {key: paper.bibtex for key, paper in PAPERS.items()}


def _check(records: Sequence[Record]) -> None:
    for what, values in (
        ("profile", {record.profile for record in records}),
        ("seed", {str(record.seed) for record in records}),
    ):
        if len(values) > 1:
            raise UsageError(
                f"a methods paragraph is of one run, and these records have the {what}s "
                f"{', '.join(sorted(values))}; give those of one"
            )


def _versions(header: Mapping[str, Json] | None) -> Mapping[str, str | None]:
    """Those of the run, or of what is installed now where its header is not at hand."""
    said = None if header is None else header.get("versions")
    return said if isinstance(said, Mapping) else installed_versions()


def _what(records: Sequence[Record], header: Mapping[str, Json] | None) -> str:
    versions = _versions(header)
    claims = len({record.claim.id for record in records})
    by_paper = Counter(paper for paper, _ in {(r.claim.paper, r.claim.id) for r in records})
    papers = " and ".join(f"{by_paper[paper]} of \\citet{{{paper}}}" for paper in sorted(by_paper))
    tool = f"mechtests {versions.get('mechtests') or '(unknown version)'} \\citep{{mechtests}}"
    beside = ", ".join(f"{name} {versions[name]}" for name in NUMBERS if versions.get(name))
    subjects = sorted({record.cell.id for record in records})
    listed = ", ".join(subjects[:6]) + (f" and {len(subjects) - 6} more" if subjects[6:] else "")
    return (
        f"We judged {_count(claims, 'claim')} ({papers}) on {listed} with {tool}"
        f"{f' ({beside})' if beside else ''}: {_count(len(records), 'verdict')}."
    )


def _measured(records: Sequence[Record]) -> str:
    sizes = sorted({r.verdict.prompts for r in records if r.verdict.prompts})
    clusters = sorted({r.verdict.clusters for r in records if r.verdict.clusters})
    dtypes = ", ".join(sorted({r.cell.dtype for r in records if r.cell.dtype})) or "float32"
    said = f"Everything was measured in {dtypes} with the profile {records[0].profile} and seed "
    said += f"{records[0].seed}"
    if sizes and clusters:
        said += (
            f"; single estimates rest on {_span(sizes)} prompts in {_span(clusters)} "
            "independent clusters"
        )
    return (
        said
        + "; what a claim chooses (heads, circuits) is chosen on the other half of the prompts."
    )


def _decided(records: Sequence[Record]) -> str:
    margins = sum(record.verdict.margin is not None for record in records)
    controls = sum(bool(record.verdict.controls) for record in records)
    said = (
        "A claim holds where the whole 95% interval lies on the claimed side of a margin that was "
        "fixed before measuring, is refuted where it lies on the other side, and is inconclusive "
        "otherwise"
    )
    if controls:
        said += (
            f"; {_count(controls, 'verdict')} of {len(records)} stand beside controls, and a "
            "deciding control that does as well keeps a claim from holding"
        )
    return said + ("." if margins else ", by counts where nothing is sampled.")


def _families(records: Sequence[Record]) -> str:
    members = [record for record in records if in_a_family(record)]
    families = len({record.claim.family for record in members})
    uncorrected = sum(record.not_after_correction for record in members)
    said = (
        f"Within each of {_count(families, 'family', 'families')} of verdicts of one claim we "
        f"report q by Benjamini-Hochberg at {LEVEL:g}"
    )
    if not members:
        return "No verdict was decided, so nothing was corrected for multiplicity."
    return said + (
        f"; {uncorrected} of those that hold do not after correction." if uncorrected else "."
    )


def _reservations(records: Sequence[Record]) -> list[str]:
    """What a reader must know: rules that were changed from outside, expected refutations."""
    changed = sum(record.overridden for record in records)
    expected = sum(
        record.expected and record.expects is None and record.outcome is Outcome.REFUTED
        for record in records
    )
    said = []
    if changed:
        said.append(
            f"In {_count(changed, 'verdict')} prompts of our own took the place of the claim's."
        )
    if expected:
        verb = "is" if expected == 1 else "are"
        said.append(f"Of the refutations {expected} {verb} expected by the paper itself.")
    return said


def _outcome(records: Sequence[Record]) -> str:
    counts = Counter(record.outcome for record in records)
    decided = counts[Outcome.HOLDS] + counts[Outcome.REFUTED]
    words = (
        (Outcome.HOLDS, "held"),
        (Outcome.REFUTED, "were refuted" if counts[Outcome.REFUTED] != 1 else "was refuted"),
        (Outcome.INCONCLUSIVE, "stayed inconclusive"),
        (Outcome.NOT_APPLICABLE, "did not apply"),
        (Outcome.ERROR, "could not be reached for an error"),
    )
    said = ", ".join(f"{counts[each]} {word}" for each, word in words if counts[each])
    return f"Of {_count(len(records), 'verdict')}, {decided} decided: {said}."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"


def _span(sorted_: Sequence[int]) -> str:
    first, last = sorted_[0], sorted_[-1]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"
