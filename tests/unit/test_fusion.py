"""Fusion of search legs."""

from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.fusion import dense_leg, fuse, lexical_leg

_hits = st.lists(st.tuples(st.integers(0, 30), st.floats(0.01, 50)), max_size=20, unique_by=lambda hit: hit[0]).map(
    lambda hits: sorted(hits, key=lambda hit: -hit[1])
)


def _ids(*legs):  # type: ignore[no-untyped-def]
    return [hit.chunk_id for hit in fuse(legs)]


@given(_hits, _hits)
def test_a_leg_that_cannot_read_the_question_changes_nothing(bm25, dense) -> None:  # type: ignore[no-untyped-def]
    if bm25:
        assert fuse([lexical_leg(bm25), dense_leg(dense, knows_language=False)]) == fuse([lexical_leg(bm25)])


@given(_hits)
def test_a_single_leg_keeps_its_order(bm25) -> None:  # type: ignore[no-untyped-def]
    assert _ids(lexical_leg(bm25)) == [chunk for chunk, _ in bm25]


@given(_hits, _hits)
def test_contributions_add_up_to_the_score_and_every_chunk_appears_once(bm25, dense) -> None:  # type: ignore[no-untyped-def]
    dense = [(chunk, score / 50) for chunk, score in dense]
    fused = fuse([lexical_leg(bm25), dense_leg(dense, knows_language=True)])
    assert sorted(hit.chunk_id for hit in fused) == sorted({chunk for chunk, _ in bm25 + dense})
    for hit in fused:
        assert abs(hit.score - sum(part for _, part in hit.contributions)) < 1e-9
        assert 0 <= hit.score <= 1 + 1e-9


def test_a_leg_of_last_resort_is_used_when_nothing_else_found_anything() -> None:
    assert _ids(lexical_leg([]), dense_leg([(7, 0.4)], knows_language=False)) == [7]


def test_a_chunk_that_both_legs_like_beats_one_that_a_single_leg_likes() -> None:
    assert _ids(lexical_leg([(1, 9.0), (2, 8.5)]), dense_leg([(3, 0.6), (2, 0.59), (4, 0.2)], knows_language=True))[0] == 2


def test_a_clear_lead_in_score_counts_although_the_ranks_are_equal() -> None:
    clear = fuse([lexical_leg([(1, 10.0), (2, 1.0)]), dense_leg([(2, 0.50), (1, 0.49)], knows_language=True)])
    assert clear[0].chunk_id == 1


def test_no_hits_fuse_to_nothing() -> None:
    assert fuse([lexical_leg([]), dense_leg([], knows_language=True)]) == []
