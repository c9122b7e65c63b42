"""Property: whoever asks whatever, while people and documents come and go, the answer is the one that a box without a cache gives."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.identity.principal import SpaceRole
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from services.router.answer_cache import AnswerCache
from tests.unit.router.answer_bed import Box, Library, asked, person, said, was_cached

_SPACES = ("legal", "hr", "it")
_space = st.sampled_from(_SPACES)
_document = st.sampled_from(("a", "b"))
_write = st.tuples(st.just("write"), _space, _document, st.integers(0, 3))
_delete = st.tuples(st.just("delete"), _space, _document)
_change = st.one_of(_write, _delete)
_grant = st.tuples(st.just("grant"), st.integers(0, 2), _space, st.sampled_from((None, SpaceRole.READER, SpaceRole.EDITOR)))
_ask = st.tuples(
    st.just("ask"), st.integers(0, 2), st.sampled_from(("q", "r")), st.sampled_from((None, ("legal",), ("legal", "hr"))), st.sampled_from((2, 5)),
    st.none() | _change,
)  # fmt: skip
_steps = st.lists(st.one_of(_ask, _ask, _change, _grant), min_size=4, max_size=24)


@settings(max_examples=120, deadline=None)
@given(steps=_steps, by_library=st.booleans(), shared=st.booleans())
def test_the_cache_changes_no_answer(steps: list[tuple[object, ...]], by_library: bool, shared: bool) -> None:
    asyncio.run(_replay(steps, by_library=by_library, shared=shared))


async def _replay(steps: list[tuple[object, ...]], *, by_library: bool, shared: bool) -> None:
    library = Library()
    revision = (lambda: library.revision) if by_library else None
    cache = AnswerCache(CacheSettings(), MemoryCacheStore(entries=20), MemoryCacheStore() if shared else None, revision=revision)
    box, plain = Box(cache, library), Box(None, library)
    rights: list[dict[str, SpaceRole]] = [{"legal": SpaceRole.READER}, {"legal": SpaceRole.READER, "hr": SpaceRole.READER}, {}]
    for step in steps:
        match step:
            case ("grant", who, space, role):
                rights[who].pop(space, None)
                if role is not None:
                    rights[who][space] = role
            case ("ask", who, question, spaces, top_k, meanwhile):
                principal = person(f"p{who}", **rights[who])
                one = asked(principal, question, turn={"spaces": spaces, "top_k": top_k})
                expected = await plain.ask(one)
                box.during = lambda meanwhile=meanwhile: _apply(library, meanwhile)
                given = await box.ask(one)
                assert said(given) == said(expected), (
                    f"{principal.spaces} were told what is not theirs, or what is no more (cached: {was_cached(given)})"
                )
                assert all(citation.space in principal.readable(spaces) for citation in said(given)[1])
            case _:
                _apply(library, step)


def _apply(library: Library, change: tuple[object, ...] | None) -> None:
    match change:
        case ("write", str(space), str(name), text):
            library.write(space, name, f"text {text} of {space}")
        case ("delete", str(space), str(name)):
            library.delete(space, name)
