"""A cached result never crosses to a caller with other rights."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal, SpaceRole
from services.agents.plugin import ToolResult
from services.agents.result_cache import key_of
from tests.unit.agents.tool_bed import Probe, call, tool, toolbox

NAMES = st.sampled_from(["a", "b", "c"])
PRINCIPALS = st.builds(
    Principal,
    subject=st.sampled_from(["user:anna", "user:berta", "key:k1"]),
    kind=st.sampled_from(["user", "key", "service"]),
    roles=st.frozensets(st.sampled_from(["member", "admin", "operator"])),
    groups=st.frozensets(st.sampled_from(["g", "h"])),
    spaces=st.dictionaries(NAMES, st.sampled_from(list(SpaceRole))),
)
CONTEXTS = st.builds(
    ToolContext,
    PRINCIPALS,
    st.sampled_from(["assistant", "documents"]),
    st.none() | st.lists(NAMES, unique=True).map(tuple),
    trace_id=st.uuids().map(str),
)


def sees(context: ToolContext) -> str:
    """What an honest tool might show: all that it is told about the caller's rights."""
    who = context.principal
    return json.dumps(
        [
            sorted(who.roles),
            sorted(who.groups),
            who.kind,
            sorted((k, int(v)) for k, v in who.spaces.items()),
            sorted(who.readable(context.spaces)),
            context.agent,
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CONTEXTS, NAMES), min_size=2, max_size=6), st.booleans())
def test_what_a_caller_gets_is_what_the_tool_would_have_said_to_that_caller(asked, per_person):
    def truth(context: ToolContext, question: str) -> str:
        return sees(context) + (context.principal.subject if per_person else "") + question

    async def show(arguments, context):
        return ToolResult(truth(context, arguments["q"]))

    async def check() -> None:
        box = toolbox([tool("show", show, read_only=True, cache_seconds=60, per_person=per_person)], cache=True)
        for context, question in asked:
            (outcome,) = await box.run([call("show", json.dumps({"q": question}))], context)
            assert outcome.content == truth(context, question)

    asyncio.run(check())


@settings(max_examples=100, deadline=None)
@given(CONTEXTS, CONTEXTS)
def test_keys_differ_whenever_rights_differ(one, other):
    show = tool("show", Probe(), read_only=True, cache_seconds=60)
    keys = [key_of(show, "plugin:test", b"{}", context, lambda spaces: "") for context in (one, other)]
    same = sees(one) == sees(other) and (None if one.spaces is None else sorted(one.spaces)) == (
        None if other.spaces is None else sorted(other.spaces)
    )
    assert (keys[0] == keys[1]) == same


async def test_people_with_the_same_rights_share_and_per_person_tools_do_not():
    anna = ToolContext(Principal("user:anna", "user", spaces={"a": SpaceRole.READER}), "assistant")
    berta = replace(anna, principal=replace(anna.principal, subject="user:berta"))
    shared, own = Probe(), Probe()
    box = toolbox(
        [tool("shared", shared, read_only=True, cache_seconds=60), tool("own", own, read_only=True, cache_seconds=60, per_person=True)], cache=True
    )
    cached = [(await box.run([call(name)], who))[0].cached for name in ("shared", "own") for who in (anna, berta, anna)]
    assert cached == [False, True, True, False, False, True]


async def test_a_broken_cache_value_is_a_miss():
    from appliance.kit.cache import MemoryCacheStore
    from services.agents.result_cache import ResultCache

    store = MemoryCacheStore()
    cache = ResultCache(store, lambda spaces: "")
    show = tool("show", Probe(), read_only=True, cache_seconds=60)
    key = cache.key(show, "s", b"{}", ToolContext(Principal("user:anna", "user")))
    assert key is not None
    await store.put(key, b'{"content": 7}', ttl_seconds=60)
    assert await cache.find(key) is None
