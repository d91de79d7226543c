"""The papers whose claims are judged, as one cites them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper, by the key that its claims' ids begin with.

    Attributes:
        key: ``"tigges2024"``.
        title: In the paper's own capitals.
        authors: Given and family names, in the paper's order.
        year: When it was published, or posted.
        venue: Where it was published.
        arxiv: Its number there.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    arxiv: str

    @property
    def url(self) -> str:
        """Where it can be read."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def citation(self) -> str:
        """Authors, year, title and venue in a sentence."""
        *first, last = self.authors
        authors = f"{', '.join(first)} and {last}" if first else last
        return f"{authors} ({self.year}). {self.title}. {self.venue}, arXiv:{self.arxiv}."

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        fields = {
            "title": "{" + self.title + "}",  # the second braces keep its capitals
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "booktitle": self.venue,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
            "url": self.url,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@inproceedings{{{self.key},", *lines, "}"])


def place_in(section: str) -> str:
    """Where a paper says something: a section by its number, a figure or page by its name.

    >>> place_in("3.2"), place_in("Figure 4"), place_in("")
    ('section 3.2', 'Figure 4', '')
    """
    return f"section {section}" if section[:1].isdigit() else section


PAPERS = {
    paper.key: paper
    for paper in (
        Paper(
            key="tigges2024",
            title="LLM Circuit Analyses Are Consistent Across Training and Scale",
            authors=("Curt Tigges", "Michael Hanna", "Qinan Yu", "Stella Biderman"),
            year=2024,
            venue="Advances in Neural Information Processing Systems (NeurIPS)",
            arxiv="2407.10827",
        ),
        Paper(
            key="nikankin2025",
            title=(
                "Arithmetic Without Algorithms: Language Models Solve Math With a Bag of Heuristics"
            ),
            authors=("Yaniv Nikankin", "Anja Reusch", "Aaron Mueller", "Yonatan Belinkov"),
            year=2025,
            venue="International Conference on Learning Representations (ICLR)",
            arxiv="2410.21272",
        ),
    )
}
"""Those of the claims that come with mechtests; the sanity claims are of no paper."""

TOOL = """@software{{mechtests,
  title   = {{mechtests: a regression test harness for the mechanisms of language models}},
  author  = {{The mechtests authors}},
  version = {{{version}}}
}}"""
