"""The papers whose claims are judged, as BibTeX, by the key that their claims' ids begin with."""

from __future__ import annotations

PAPERS = {
    "tigges2024": """@inproceedings{tigges2024,
  title     = {{LLM} Circuit Analyses Are Consistent Across Training and Scale},
  author    = {Tigges, Curt and Hanna, Michael and Yu, Qinan and Biderman, Stella},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024},
  eprint    = {2407.10827},
  archivePrefix = {arXiv}
}""",
    "nikankin2025": """@inproceedings{nikankin2025,
  title     = {Arithmetic Without Algorithms: Language Models Solve Math with a Bag of Heuristics},
  author    = {Nikankin, Yaniv and Reusch, Anja and Mueller, Aaron and Belinkov, Yonatan},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  eprint    = {2410.21272},
  archivePrefix = {arXiv}
}""",
}
"""Only papers: ``sanity`` claims are about the model and cite nobody."""

TOOL = """@software{{mechtests,
  title   = {{mechtests: a regression test harness for the mechanisms of language models}},
  author  = {{The mechtests authors}},
  version = {{{version}}}
}}"""
