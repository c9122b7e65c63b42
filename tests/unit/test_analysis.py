"""Text analysis: terms, stored term lists and the reading of questions."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.language.query import AnswerType, Language, analyse_query, detect_language, expected_answer, term_weights
from appliance.language.terms import (
    analyse,
    decode_passage_terms,
    encode_passage_terms,
    passage_terms,
    prefixes,
    tokenise,
)


class _Counts:
    def __init__(self, documents: int, **counts: int) -> None:
        self.documents = documents
        self._counts = counts

    def document_frequency(self, term: str) -> int:
        return self._counts.get(term, 0)


@given(st.text())
def test_any_string_gives_terms_without_white_space(text: str) -> None:
    terms = analyse(text)
    assert " ".join(terms).split() == terms
    assert all(terms)


@given(st.text())
def test_analysis_gives_the_same_terms_every_time(text: str) -> None:
    assert analyse(text) == analyse(text)


@given(st.lists(st.sampled_from(["договор", "Ёлка", "contract", "1,500", "№ 5", "й", "東京", "a\u0301", "½", "\n\n"])))
def test_a_term_list_comes_back_from_its_blob(words: list[str]) -> None:
    passage = passage_terms(". ".join(words))
    assert decode_passage_terms(encode_passage_terms(passage)) == passage


@given(st.text())
@example("! 0")
def test_any_passage_survives_storage(text: str) -> None:
    passage = passage_terms(text)
    assert len(passage.terms) == len(passage.kinds)
    assert list(passage.starts) == sorted(set(passage.starts))
    assert decode_passage_terms(encode_passage_terms(passage)) == passage


def test_a_foreign_blob_is_refused() -> None:
    with pytest.raises(ValueError, match="index the document again"):
        decode_passage_terms(b"0\n-\n0\n a b ")


def test_yo_case_accents_and_soft_hyphens_do_not_matter() -> None:
    assert analyse("Ёлка ДОГОВО\u0301Р пред\u00adоплата") == analyse("елка договор предоплата")


def test_decomposed_letters_equal_composed_ones() -> None:
    assert analyse("и\u0306од cafe\u0301") == analyse("йод café")


def test_inflected_forms_share_a_term() -> None:
    assert len(set(analyse("договор договора договором договоры"))) == 1
    assert len(set(analyse("contract contracts contracted"))) == 1


def test_a_number_has_one_spelling() -> None:
    assert analyse("1,500") == analyse("1 500") == analyse("1500") == ["1500"]
    assert analyse("0,1") == analyse("0.1") == ["0.1"]


def test_a_date_is_cut_so_that_its_year_can_be_found() -> None:
    assert tokenise("31.12.2027") == ["31", "12", "2027"]


def test_a_fraction_does_not_melt_into_the_number_before_it() -> None:
    assert tokenise("5½")[0] == "5"


def test_prefixes_join_derivations_that_stems_keep_apart() -> None:
    terms = analyse("договор договорный")
    assert len(set(terms)) == 2
    assert len(set(prefixes(terms))) == 1


def test_ten_megabytes_without_a_space_are_analysed() -> None:
    assert len(analyse("я" * 5_000_000)) == 1


def test_kinds_mark_years_numbers_months_and_names() -> None:
    passage = passage_terms("Signed by Anna in May 1998. Twelve pages, 40 copies.")
    kinds = dict(zip(passage.terms, passage.kinds, strict=True))
    assert (kinds["anna"], kinds["1998"], kinds["40"], kinds["twelv"]) == ("c", "y", "n", "w")
    assert passage.kinds[0] == "C"
    assert len(passage.starts) == 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Какой срок оплаты?", Language.RU),
        ("When does it end?", Language.EN),
        ("Кто написал Liber servitoris?", Language.RU),
        ("What does договор mean?", Language.EN),
        ("Wann endet der Vertrag?", Language.OTHER),
        ("Quand est la date de fin?", Language.OTHER),
        ("Коли закінчується договір?", Language.OTHER),
        ("契約はいつ終わりますか", Language.OTHER),
        ("12345 ???", Language.OTHER),
        ("", Language.OTHER),
    ],
)
def test_the_language_of_a_question(text: str, language: Language) -> None:
    assert detect_language(text) is language


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("When does the supply contract end?", AnswerType.DATE),
        ("В каком году основана компания?", AnswerType.DATE),
        ("What is the notice period?", AnswerType.NUMBER),
        ("Какой срок оплаты?", AnswerType.NUMBER),
        ("Сколько дней длится отпуск?", AnswerType.NUMBER),
        ("Who signs the act?", AnswerType.PERSON),
        ("Кто утверждает график?", AnswerType.PERSON),
        ("Где находится склад?", AnswerType.PLACE),
        ("Почему остановился насос?", AnswerType.EXPLANATION),
        ("What colour is it?", AnswerType.ANY),
    ],
)
def test_the_answer_that_a_question_expects(text: str, kind: AnswerType) -> None:
    assert expected_answer(text) is kind


def test_function_words_are_not_asked_for() -> None:
    assert analyse_query("What is the price of the pump?").terms == tuple(analyse("price pump"))


def test_a_question_of_function_words_keeps_them() -> None:
    assert analyse_query("Who is who?").terms


def test_names_and_numbers_of_a_question_are_marked() -> None:
    query = analyse_query("How much is the P-200 pump from Grundfos?")
    assert {t for t, named in zip(query.terms, query.names, strict=True) if named} >= {"200", "grundfo"}


@given(st.text())
def test_any_question_can_be_analysed(text: str) -> None:
    query = analyse_query(text)
    assert len(query.terms) == len(query.names) == len(set(query.terms))


def test_rare_terms_weigh_more_and_no_term_weighs_nothing() -> None:
    rare, usual, everywhere = term_weights(["a", "b", "c"], _Counts(12, a=1, b=6, c=12))
    assert rare > usual > everywhere >= 0.2


def test_an_empty_index_still_gives_weights() -> None:
    assert term_weights(["a"], _Counts(0))[0] > 0
