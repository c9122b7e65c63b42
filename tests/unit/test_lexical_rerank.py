"""The built-in reranker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.language.matching import TermMatcher, passage_features, profile_query
from appliance.language.query import analyse_query
from appliance.language.terms import passage_terms
from services.rerank.lexical import Candidate, score


class _EveryTermIsRare:
    documents = 1000

    def document_frequency(self, term: str) -> int:
        return 3


def _candidate(text: str, **facts) -> Candidate:  # type: ignore[no-untyped-def]
    return Candidate(passage=passage_terms(text), **({"fused": 0.5} | facts))


def _scores(question: str, *candidates: Candidate) -> list[float]:
    return score(analyse_query(question), candidates, _EveryTermIsRare())


@pytest.mark.parametrize(
    ("question", "better", "worse"),
    [
        ("Which valve leaks?", "The red valve leaks.", "The red pump works."),
        ("price of steel pipes", "Steel pipes: price on request.", "Steel is strong. The price rose. Clay pipes break."),
        ("Порядок оплаты товара", "Порядок оплаты товара указан ниже.", "Товар без оплаты. Порядок прочий."),
        ("When was it signed?", "It was signed in 1998.", "It was signed there by them."),
        ("Сколько весит насос?", "Насос весит 40 кг.", "Насос весит немного."),
        ("договорный отдел", "Отдел договоров рядом.", "Отдел кадров рядом."),
        ("When does the contract end?", "The agreement is valid until 2027.", "The pump is painted in 2027."),
        ("оплота счёта", "Оплата счёта.", "Проверка счёта."),
    ],
)
def test_the_better_passage_scores_higher(question: str, better: str, worse: str) -> None:
    first, second = _scores(question, _candidate(better), _candidate(worse))
    assert first > second


def test_similarity_decides_between_equal_words() -> None:
    first, second = _scores("valve", _candidate("A valve.", cosine=0.2), _candidate("A valve.", cosine=0.7))
    assert second > first


def test_a_chunk_whose_similarity_is_unknown_is_taken_to_be_the_least_similar() -> None:
    low, unknown = _scores("valve", _candidate("A valve.", cosine=0.3), _candidate("A valve."))
    assert low == pytest.approx(unknown)


def test_chunks_of_one_document_vouch_for_each_other() -> None:
    alone, backed, _ = _scores(
        "valve pressure",
        _candidate("A valve.", document="a"),
        _candidate("A valve.", document="b"),
        _candidate("The pressure of the valve.", document="b", fused=0.9),
    )
    assert backed > alone


def test_a_heading_counts() -> None:
    bare, headed = _scores("pump oil", _candidate("Change the oil."), _candidate("Change the oil.", heading=("Pump",)))
    assert headed > bare


def test_no_candidates_no_scores() -> None:
    assert _scores("anything") == []


def test_terms_match_by_head_but_not_by_accident() -> None:
    matcher = TermMatcher(["контракт", "договорн"])
    assert matcher["договор"] is not None
    assert matcher["контрол"] is None
    assert matcher["дог"] is None


@given(st.text(), st.text())
def test_features_stay_in_range_for_any_text(question: str, text: str) -> None:
    query = analyse_query(question)
    found = passage_features(profile_query(query, [1.0] * len(query.terms)), passage_terms(text))
    for value in (found.coverage, found.sentence, found.pairs, found.grams):
        assert 0 <= value <= 1 + 1e-9
    assert found.answer_type in (-1.0, 0.0, 1.0)
    assert found.sentence <= found.coverage + 1e-9


@given(st.text(min_size=1), st.text())
def test_scores_are_at_most_one(question: str, text: str) -> None:
    assert score(analyse_query(question), [_candidate(text, fused=1.0, bm25=3.0, cosine=1.0)], _EveryTermIsRare())[0] <= 1 + 1e-9
