"""What the reader says: verbatim quotes with citations, or a refusal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.language.query import Language, analyse_query
from appliance.language.terms import analyse, passage_terms
from services.llm.reader.compose import PHRASES, Reply, read
from services.llm.reader.evidence import ReaderPassage
from services.rerank.lexical import Candidate, score
from tests.unit.reader_demo import ANSWERABLE, DOCUMENTS, UNANSWERABLE

_TERMS = [passage_terms(text) for _, _, text in DOCUMENTS]


class _Statistics:
    """Document frequencies of the demo documents."""

    documents = len(DOCUMENTS)

    def document_frequency(self, term: str) -> int:
        return sum(term in terms.terms for terms in _TERMS)


def _search(question: str) -> list[ReaderPassage]:
    """The five best demo documents by the reranker alone: no encoder, no index."""
    candidates = [Candidate(terms, 0.0, heading=(name, *heading)) for terms, (name, heading, _) in zip(_TERMS, DOCUMENTS, strict=True)]
    scores = score(analyse_query(question), candidates, _Statistics())
    order = sorted(range(len(DOCUMENTS)), key=lambda i: -scores[i])[:5]
    return [ReaderPassage(n, DOCUMENTS[i][2], scores[i], None, DOCUMENTS[i][0], DOCUMENTS[i][1]) for n, i in enumerate(order, 1)]


def _ask(question: str) -> Reply:
    return read(question, _search(question), _Statistics())


def _is_answered(question: str, text: str) -> bool:
    return any(text in quote.text for quote in _ask(question).quotes)


def test_nearly_every_office_question_is_answered_from_the_right_place() -> None:
    missed = [question for question, text, _ in ANSWERABLE if not _is_answered(question, text)]
    assert len(missed) <= 2, missed


def test_questions_without_an_answer_are_refused() -> None:
    answered = [question for question in UNANSWERABLE if not _ask(question).refused]
    assert answered == []


def test_a_refusal_speaks_the_language_of_the_question_and_quotes_nothing() -> None:
    for question, language in (("Who is the king of Spain?", Language.EN), ("Кто король Испании?", Language.RU)):
        reply = _ask(question)
        assert reply.refused
        assert reply.quotes == ()
        assert reply.text == PHRASES[language].refusal


def test_a_table_row_is_quoted_with_its_header_and_without_its_neighbours() -> None:
    quotes = [quote.text for quote in _ask("What is the price of the P-200 pump?").quotes]
    assert quotes[:2] == ["| Item | Article | Price, EUR | Warranty |", "| Centrifugal pump P-200 | 40120 | 1,980 | 24 months |"]
    assert not any("P-100" in quote for quote in quotes)


def test_a_definition_takes_the_sentence_that_follows() -> None:
    text = "A lease is a right to use a thing. It is given for a fee. It ends with the term. Dogs bark."
    reply = read("Explain what a lease is", [ReaderPassage(1, text, 1.0)], threshold=0.0)
    assert reply.quotes[0].text == "A lease is a right to use a thing. It is given for a fee."


def test_no_passages_is_a_refusal() -> None:
    assert read("When does it end?", []).refused


def test_an_empty_question_is_a_refusal() -> None:
    assert read("", [ReaderPassage(1, "Some text.", 1.0)]).refused


def test_a_similar_sentence_lifts_the_belief_in_an_answer() -> None:
    passages = [ReaderPassage(1, "The boiler is checked yearly. The roof is red.", 1.0, 0.5)]
    low, high = (read("When is the boiler inspected?", passages, None, lambda t, c=c: [c] * len(t)) for c in (0.1, 0.8))
    assert high.probability > low.probability


_words = st.sampled_from(["pump", "oil", "насос", "масло", "2027", "A.", "end!", "\n\n", "| a | b |\n", "# ", "- ", "«x»", ";", "[1]", "г."])
_texts = st.lists(_words, max_size=60).map(" ".join)


@settings(max_examples=200)
@given(st.one_of(_texts, st.text(max_size=200)), st.lists(_texts, max_size=4), st.booleans())
def test_nothing_is_said_outside_quotes_and_every_quote_is_verbatim(question: str, texts: list[str], similar: bool) -> None:
    passages = [ReaderPassage(n, text, 1 / n) for n, text in enumerate(texts, 1)]
    reply = read(question, passages, None, (lambda t: [0.5] * len(t)) if similar else None, threshold=0.0)
    assert len(reply.quotes) <= 3
    for quote in reply.quotes:
        assert quote.text == passages[quote.number - 1].text[quote.start : quote.end]
        assert quote.text
    phrases = PHRASES[reply.language]
    allowed = {phrases.opening, phrases.refusal, f"\n{phrases.left}"} | {f"{phrases.right} [{q.number}]" for q in reply.quotes}
    assert all(segment.quote is not None or segment.text in allowed for segment in reply.segments)
    assert [s.quote for s in reply.segments if s.quote] == list(reply.quotes)
    assert "".join(reply.pieces()) == reply.text


@pytest.mark.parametrize("question", [question for question, _, _ in ANSWERABLE])
def test_a_reply_is_shorter_than_the_passages_it_quotes(question: str) -> None:
    reply = _ask(question)
    quoted = sum(len(quote.text) for quote in reply.quotes)
    assert quoted <= sum(len(passage.text) for passage in _search(question)) / 2


def test_the_demo_terms_are_analysed_like_any_other() -> None:
    assert list(_TERMS[0].terms) == analyse(DOCUMENTS[0][2])
