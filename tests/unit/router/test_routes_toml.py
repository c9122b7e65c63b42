"""``router.toml`` and examples: what is accepted, what is refused and how it is named; context and cache by themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contracts.router.v1.routing import Decision
from appliance.kit.errors import ApplianceError
from services.router.intents.decision_cache import DecisionCache, decision_key
from services.router.intents.examples import read_examples
from services.router.intents.follow_ups import read_conversation
from services.router.intents.patterns import is_found
from services.router.intents.routes_toml import NOTHING, load_router_file
from tests.unit.router.intents_bed import TOML, ask


def load(tmp_path, text):
    (tmp_path / "router.toml").write_text(text)
    return load_router_file(tmp_path)


def test_the_whole_format_is_read(tmp_path):
    rule = '[[rules]]\nname = "r"\nroute = "vacation"\nkeywords = ["отпуск"]\nregex = ["^/leave"]\nlanguage = "ru"\nspaces = ["hr"]\n'
    found = load(tmp_path, TOML + rule + "[thresholds]\nhigh = 0.9\nmedium = 0.4\n")
    assert list(found.routes) == ["documents", "vacation", "invoices"] and found.default == "documents"
    assert found.routes["invoices"].route.titles == {"ru": "Счета", "en": "Invoices"}
    assert found.rules[0].spaces == {"hr"} and found.thresholds.high == 0.9
    assert load_router_file(tmp_path / "nowhere") is NOTHING


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "schema_version"),
        ("schema_version = 2", "schema_version"),
        ("schema_version = true\n[routes.a]", "schema_version"),
        ("schema_version = 1", "routes"),
        ("schema_version = 1\n[routes]", "routes"),
        ("schema_version = 1\n[routes.a]\nagnet = 'x'", "routes.a.agnet"),
        ("schema_version = 1\n[routes.A]", "routes.A"),
        ("schema_version = 1\n[routes.out_of_scope]", "routes.out_of_scope"),
        ("schema_version = 1\nrutes = 1\n[routes.a]", "rutes"),
        ("schema_version = 1\ndefault = 'b'\n[routes.a]", "default"),
        ("schema_version = 1\nexamples = '/etc/passwd'\n[routes.a]", "examples"),
        ("schema_version = 1\nexamples = '../x'\n[routes.a]", "examples"),
        ("schema_version = 1\n[routes.a]\ntitles = {de = 'x'}", "routes.a.titles.de"),
        ("schema_version = 1\n[routes.a]\n[[rules]]\nroute = 'a'", "rules.1"),
        ("schema_version = 1\n[routes.a]\n[[rules]]\nroute = 'b'\nkeywords = ['x']", "rules.1.route"),
        ("schema_version = 1\n[routes.a]\n[[rules]]\nroute = 'a'\nregex = ['(?=x)']", "rules.1.regex"),
        ("schema_version = 1\n[routes.a]\n[[rules]]\nroute = 'a'\nregex = ['(']", "rules.1.regex"),
        ("schema_version = 1\n[routes.a]\n[thresholds]\nhigh = 2", "thresholds.high"),
        ("schema_version = 1\n[routes.a]\n[thresholds]\nhigh = 0.3\nmedium = 0.5", "thresholds.medium"),
        ("schema_version = 1\n[routes.a]\n[thresholds]\nhigh = nan", "thresholds.high"),
        ("schema_version = [", "TOML"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path, text, named):
    with pytest.raises(ApplianceError, match=named) as refused:
        load(tmp_path, text)
    assert refused.value.code == "settings_invalid" and "router.toml" in refused.value.message


def test_patterns_cannot_run_for_ever():
    assert not is_found("(a+)+$", "a" * 3900 + "b")
    assert is_found("СЧ[её]т", "Мой счёт")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2"),
        ('{"text": "x"}', "line 2"),
        ('{"text": " ", "route": "a"}', "text of 1"),
        ('{"text": "x", "route": "b"}', r"routes\.b"),
        ('{"text": "x", "route": "a", "more": 1}', "line 2"),
        ('{"text": "one", "route": "out_of_scope"}', "earlier line"),
        ("\ufeff[]", "line 2"),
    ],
)
def test_a_bad_example_is_named_by_its_line(tmp_path, line, named):
    file = tmp_path / "examples.jsonl"
    file.write_text('{"text": "One", "route": "a"}\n' + line + "\n")
    with pytest.raises(ApplianceError, match=named):
        read_examples(file, {"a"})


def test_repeated_examples_count_once(tmp_path):
    file = tmp_path / "examples.jsonl"
    file.write_text("\n\n".join(json.dumps({"text": text, "route": "a"}) for text in ("One two", "one  TWO", "three")))
    found = read_examples(file, {"a"})
    assert (len(found.examples), found.repeated) == (2, 1)


@pytest.mark.parametrize(
    ("texts", "before"),
    [
        (["show me unpaid invoices of march", "and in May?"], "show me unpaid invoices of march"),
        (["покажи неоплаченные счета за март", "а в апреле?", "а в мае?"], "покажи неоплаченные счета за март"),
        (["show me unpaid invoices of march", "what does the contract say about late delivery"], ""),
        (["and in May?"], ""),
    ],
)
def test_a_short_message_leans_on_the_last_full_question(texts, before):
    assert read_conversation(ask(*texts)).before == before


DECISION = Decision(None, 0.5, "low", "classifier")


def test_the_cache_forgets_the_oldest_and_what_is_old():
    now = [0.0]
    cache = DecisionCache(2, lambda: now[0])
    for key in (b"a", b"b"):
        cache.put(key, DECISION, 10)
    assert cache.get(b"a").source == "cache"
    cache.put(b"c", DECISION, 10)
    assert cache.get(b"b") is None and cache.get(b"a") is not None and len(cache) == 2
    now[0] = 10.0
    assert cache.get(b"a") is None
    cache.put(b"d", DECISION, 0)
    assert cache.get(b"d") is None


@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["ru", "en"]), st.text(max_size=5)), min_size=2, max_size=2, unique=True
    )
)
def test_keys_differ_wherever_the_parts_do(pairs):
    plain = [tuple(" ".join(part.lower().split()) for part in pair[:2]) + pair[2:] for pair in pairs]
    keys = [decision_key(text, before, language, None, version) for text, before, language, version in pairs]
    assert (keys[0] == keys[1]) == (plain[0] == plain[1])


def test_spaces_are_part_of_the_key_in_any_order():
    one, two = (decision_key("x", "", "en", spaces, "v") for spaces in (["a", "b"], ["b", "a"]))
    assert one == two != decision_key("x", "", "en", ["a"], "v")
