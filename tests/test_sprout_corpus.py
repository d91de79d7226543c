"""The corpus of the embedded family: the same by seed, with nothing of what is held out."""

from collections import Counter
from itertools import combinations, islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechtests.models.tokenizer import read
from mechtests.sprout import corpus, lexicon, numbers, tokenizer
from mechtests.sprout.held_out import SHARES, unseen
from mechtests.tasks import greater_than, ioi, pronoun, succession, sva
from mechtests.tasks.names import FIRST_NAMES

DOCUMENTS = 30_000
RANDOM = ("repeats", "scattered", "filler")
NOUNS = {form for noun in lexicon.NOUNS for form in (noun, noun + "s")}


@pytest.fixture(scope="module")
def documents():
    """A large sample of documents, each its kind and words."""
    return list(islice(corpus.documents(seed=7), DOCUMENTS))


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The tokenizer as the harness reads it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write(folder)
    return read(folder, name="sprout", vocabulary=len(corpus.ids()))


def of_kind(documents, *kinds):
    return [words for kind, words in documents if kind in kinds]


def test_the_same_seed_gives_the_same_rows_in_any_order():
    rows = [corpus.row(3, number) for number in range(6)]
    assert [corpus.row(3, number) for number in reversed(range(6))] == rows[::-1]
    assert [corpus.row(4, number) for number in range(6)] != rows
    assert list(islice(corpus.documents(1), 50)) == list(islice(corpus.documents(1), 50))


def test_rows_of_known_seeds_are_what_the_shipped_models_were_trained_on():
    """A changed word or share changes every row; the shipped weights then have another corpus."""
    words = list(corpus.ids())
    text = [" ".join(words[token] for token in corpus.row(0, number)) for number in range(200)]
    assert digest(text) == "0892c890ebbc7333"


def digest(text):
    import hashlib

    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def test_the_language_has_600_to_1500_words_and_every_one_is_used(documents):
    assert 600 <= len(lexicon.vocabulary()) <= 1500
    used = {word for _, words in documents for word in words}
    assert used == set(lexicon.vocabulary())
    meant = {word for kind, words in documents if kind not in RANDOM for word in words}
    assert not {*lexicon.NAMES, *lexicon.NUMBERS, *lexicon.DIGITS} - meant


def test_every_kind_has_its_share_of_the_words(documents):
    counted = Counter()
    for kind, words in documents:
        counted[kind] += min(len(words) + 1, corpus.CONTEXT)
    shares = {kind: count / counted.total() for kind, count in counted.items()}
    assert sum(share for share, _ in corpus.KINDS.values()) == pytest.approx(1)
    for kind, (share, _) in corpus.KINDS.items():
        assert shares[kind] == pytest.approx(share, rel=0.15), kind


def test_a_row_is_whole_documents_behind_bos_but_for_the_last():
    row = corpus.row(0, 0)
    assert len(row) == corpus.CONTEXT
    assert row[0] == corpus.ids()[lexicon.BOS]
    assert row.count(corpus.ids()[lexicon.UNKNOWN]) == 0


def test_people_whose_names_are_held_out_never_meet(documents):
    names, met = set(lexicon.NAMES), set()
    for words in of_kind(documents, "gifts", "stories", "repeated names"):
        met |= {frozenset(pair) for pair in combinations(names & set(words), 2)}
    assert not [pair for pair in met if unseen("names", *pair)]
    known = [pair for pair in combinations(lexicon.NAMES, 2) if not unseen("names", *pair)]
    assert len(met) > 0.9 * len(known)


def test_no_span_starts_in_a_held_out_year(documents):
    centuries, digits, first = set(lexicon.CENTURIES), set(lexicon.DIGITS), set()
    for words in of_kind(documents, "years"):
        for sentence in sentences(words):
            years = [pair for pair in pairwise(sentence) if in_year(pair, centuries, digits)]
            first.add(years[0])
    assert not [year for year in first if unseen("years", *year)]
    assert len(first) > 300


def in_year(pair, centuries, digits):
    return pair[0] in centuries and pair[1] in digits


def sentences(words):
    sentence = []
    for word in words:
        if word in (".", "?"):
            yield sentence
            sentence = []
        else:
            sentence.append(word)


def test_no_problem_has_held_out_operands_and_every_one_is_right(documents):
    seen = set()
    for words in of_kind(documents, "arithmetic"):
        assert len(words) % 6 == 0
        for start in range(0, len(words), 6):
            a, operator, b, equals, answer, stop = words[start : start + 6]
            assert (equals, stop) == ("=", ".")
            assert str(numbers.result(operator, int(a), int(b))) == answer
            seen.add((operator, a, b))
    assert not [problem for problem in seen if unseen("operands", *problem)]
    assert {operator for operator, _, _ in seen} == set(lexicon.OPERATORS)


def test_no_name_has_a_held_out_adjective_and_every_pronoun_agrees(documents):
    seen = set()
    for words in of_kind(documents, "pronouns"):
        for sentence in sentences(words):
            (name,) = set(lexicon.NAMES) & set(sentence)
            seen |= {(name, word) for word in set(lexicon.ADJECTIVES) & set(sentence)}
            other = lexicon.FORMS["male" if name in lexicon.FEMALE else "female"]
            assert not set(other.values()) & set(sentence)
    assert not [pair for pair in seen if unseen("pronoun", *pair)]


def test_no_subject_has_a_held_out_attractor(documents):
    seen = set()
    for words in of_kind(documents, "agreement"):
        for sentence in sentences(words):
            nouns = [word for word in sentence if word in NOUNS]
            assert len(nouns) <= 2
            if len(nouns) == 2:
                seen.add(tuple(nouns))
    assert not [pair for pair in seen if unseen("nouns", *pair)]


def test_held_out_shares_are_what_the_table_says():
    digits = [(century, year) for century in lexicon.CENTURIES for year in lexicon.DIGITS]
    operands = [("+", str(a), str(b)) for a in range(100) for b in range(100)]
    for kind, items in (
        ("names", list(combinations(FIRST_NAMES, 2))),
        ("years", digits),
        ("operands", operands),
    ):
        share = sum(unseen(kind, *item) for item in items) / len(items)
        assert share == pytest.approx(SHARES[kind], abs=0.03)


@given(st.permutations(["Mary", "John"]), st.permutations(["guards", "author"]))
def test_held_out_pairs_have_no_order_and_nouns_no_number(names, nouns):
    assert unseen("names", *names) == unseen("names", "Mary", "John")
    assert unseen("nouns", *nouns) == unseen("nouns", "author", "guard")


def test_an_unknown_kind_or_a_wrong_number_of_items_says_so():
    with pytest.raises(ValueError, match="no kind of combination 'verbs'"):
        unseen("verbs", "is", "are")
    with pytest.raises(ValueError, match="has 3 items"):
        unseen("operands", "+", "3")


def test_every_word_is_one_token_with_and_without_a_space_and_comes_back(reader):
    for word in lexicon.vocabulary():
        (token,) = reader.encode(word)
        assert reader.encode(f" {word}") == [token] == [corpus.ids()[word]]
        assert reader.decode([token]).strip() == word


def test_the_tokenizer_splits_a_document_as_the_corpus_does(documents, reader):
    for _, words in documents[:2000]:
        assert reader.encode(" ".join(words)) == [corpus.ids()[word] for word in words]


def test_a_year_is_two_tokens_and_a_number_one(reader):
    assert reader.encode("1705") == reader.encode("17 05")
    assert reader.encode("132") == [corpus.ids()["132"]]
    assert reader.encode("12 + 34 = 46.") == reader.encode("12+34=46 .")


def test_prompts_start_with_bos_as_documents_do(reader):
    assert reader.bos == corpus.row(0, 0)[0]


@pytest.mark.parametrize("task", [ioi.ioi, greater_than.greater_than, pronoun.pronoun, sva.sva])
def test_prompts_of_a_task_have_no_unknown_word(task, reader):
    import numpy as np

    prompts = task.generate(reader, 60, np.random.default_rng(0))
    assert not (prompts.clean == corpus.ids()[lexicon.UNKNOWN]).any()


def test_list_items_are_words_of_the_language():
    items = {item for one in succession.LISTS.values() for item in one}
    assert items <= set(lexicon.vocabulary())
