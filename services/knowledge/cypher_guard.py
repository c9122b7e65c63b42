"""Which Cypher may run: one reading statement, written in words we know.

The first of three locks. The text is cut into tokens and what runs is written anew from these tokens, so a comment, an odd space or a second
statement cannot be read differently by the engine than here. The second lock is the read-only transaction it runs in, the third the process that it
runs in, which has the graph of one space open for it, no network, bounded memory and an end.

Invariants:
    1. The first word opens a reading clause; ``;`` ends the text or is refused. By the engine's grammar such a statement writes, reads files or
       calls procedures only through the words in ``_REFUSED``, which are refused wherever they stand as words (in any case).
    2. A word before ``(`` is a keyword or a function in ``FUNCTIONS``: no function that writes (``nextval``), reads settings or files, or fills memory.
    3. Outside strings only ASCII, so that no letter or space is one to the engine only.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.knowledge.domain import too_deep

MAX_CYPHER_CHARACTERS: Final = 10_000
MAX_PARAMETERS: Final = 50
MAX_PARAMETER_BYTES: Final = 64 * 1024
MAX_ROWS: Final = 1000
_MAX_BRACKETS: Final = 40
_MAX_TOKENS: Final = 2_000
_MAX_HOPS: Final = 10
_INT64: Final = 1 << 63

FUNCTIONS: Final = frozenset(
    """count sum avg min max collect size length coalesce id label labels nodes rels relationships properties keys is_acyclic is_trail
    lower upper tolower toupper lcase ucase trim ltrim rtrim substring substr left right reverse contains starts_with ends_with prefix suffix
    string_split split_part regexp_matches regexp_extract levenshtein concat
    abs ceil ceiling floor round sqrt ln log pow sign greatest least
    list_contains list_has list_len list_element list_extract list_distinct list_unique list_sort list_sum list_any list_all list_concat
    any all none single exists cast string int64 double bool timestamp date to_timestamp epoch_ms date_part year month day
    head last tail isempty nullif ifnull""".split()  # noqa: SIM905  a word list reads better as text
)
_FIRST: Final = frozenset({"match", "optional", "unwind", "with", "return"})
_BEFORE_PARENTHESIS: Final = frozenset(
    "match where and or xor not in with return case when then else by distinct unwind union shortest wshortest trail acyclic is as limit skip on all".split()  # noqa: SIM905
)
_REFUSED: Final = frozenset(
    """create merge set delete detach remove foreach call yield load copy import export attach detach use install uninstall update extension
    begin commit rollback checkpoint transaction drop alter rename add comment macro sequence type_ project standalone explain profile
    force headers insert truncate grant revoke index table database graph""".split()  # noqa: SIM905
)
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<comment>//[^\r\n]*|/\*.*?\*/)
    |(?P<string>'(?:[^'\\]|\\['"\\nrtbf])*'|"(?:[^"\\]|\\['"\\nrtbf])*")
    |(?P<parameter>\$[A-Za-z_][A-Za-z0-9_]{0,63})
    |(?P<quoted>`[A-Za-z_][A-Za-z0-9_]{0,63}`)
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>(?!//|/\*)(?:\.\.|<=|>=|<>|=~|\+=|[-+*/%^=<>()\[\]{},.:|!]))""",
    re.VERBOSE | re.DOTALL,
)
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def read_only(cypher: str) -> str:
    """The statement as it may run.

    Raises:
        ApplianceError: ``query_refused`` for anything that is not one reading statement; ``invalid_request`` when it is empty or too long.
    """
    if not isinstance(cypher, str) or not cypher.strip() or len(cypher) > MAX_CYPHER_CHARACTERS:
        raise ApplianceError("invalid_request", "the query is empty or too long", hint=f"1 to {MAX_CYPHER_CHARACTERS:,} characters of Cypher")
    tokens = _tokens(cypher)
    if not tokens or tokens[0][0] != "word" or tokens[0][1].lower() not in _FIRST:
        raise _refused("a query begins with MATCH, OPTIONAL MATCH, UNWIND, WITH or RETURN")
    for position, (kind, text) in enumerate(tokens):
        following = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        if kind in {"word", "quoted"}:
            _check_word(text.strip("`"), following)
    _check_brackets(tokens)
    _check_hops(tokens)
    return " ".join(text for _, text in tokens)


def _tokens(cypher: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    text, position = _without_end(cypher), 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise _refused(f"character {position + 1} cannot be read: one statement, ASCII outside strings, parameters as $name")
        position = found.end()
        if found.lastgroup not in {"space", "comment"}:
            tokens.append((str(found.lastgroup), found.group()))
        if len(tokens) > _MAX_TOKENS:
            raise _refused(f"more than {_MAX_TOKENS} words")
    return tokens


def _without_end(cypher: str) -> str:
    text = cypher.rstrip(" \t\r\n")
    return text.removesuffix(";")


def _check_word(word: str, following: str) -> None:
    lower = word.lower()
    if lower in _REFUSED:
        raise _refused(f"{lower.upper()} is not a word of reading queries")
    if lower.startswith("_"):
        raise _refused("names do not begin with an underscore")
    if following == "(" and lower not in FUNCTIONS and lower not in _BEFORE_PARENTHESIS:
        raise _refused(f"the function {lower} may not be used here")


def _check_brackets(tokens: list[tuple[str, str]]) -> None:
    depth = 0
    for kind, text in tokens:
        if kind == "mark" and text in "([{":
            depth += 1
        elif kind == "mark" and text in ")]}":
            depth -= 1
        if not 0 <= depth <= _MAX_BRACKETS:
            raise _refused(f"brackets must match and nest at most {_MAX_BRACKETS} deep")


def _check_hops(tokens: list[tuple[str, str]]) -> None:
    """A range of hops (``-[*1..3]-``) needs an end, and a near one. ``*`` and ``..`` in other brackets are left alone."""
    inside: list[str] = []
    for position, (_, text) in enumerate(tokens):
        before = tokens[position - 1][1] if position else ""
        if text in {"(", "[", "{"}:
            inside.append("-[" if text == "[" and before == "-" else text)
        elif text in {")", "]", "}"}:
            inside.pop()
        elif inside[-1:] == ["-["] and ((text == "*" and not _bounded(tokens, position + 1)) or (text == ".." and not _near(tokens, position + 1))):
            raise _refused(f"a range of hops needs an end of at most {_MAX_HOPS}")


def _bounded(tokens: list[tuple[str, str]], position: int) -> bool:
    """Whether a near number follows a ``*``, or a range, whose end is looked at when its turn comes; ``SHORTEST`` and the like may stand between."""
    while position < len(tokens) and tokens[position][0] == "word":
        position += 1
    ranged = any(text == ".." for _, text in tokens[position : position + 2])
    return ranged or _near(tokens, position)


def _near(tokens: list[tuple[str, str]], position: int) -> bool:
    if position >= len(tokens) or tokens[position][0] != "number" or not tokens[position][1].isdecimal():
        return False
    return int(tokens[position][1][:18]) <= _MAX_HOPS


def checked_parameters(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Plain JSON values under plain names, as a copy; ``invalid_request`` or ``too_large`` otherwise."""
    if parameters is None:
        return {}
    wrong = ApplianceError("invalid_request", f"parameters are at most {MAX_PARAMETERS} plain JSON values by name", hint="use them as $name")
    if not isinstance(parameters, dict) or len(parameters) > MAX_PARAMETERS or too_deep(parameters, 5):
        raise wrong
    if not all(isinstance(name, str) and _PARAMETER_NAME.fullmatch(name) for name in parameters):
        raise wrong
    try:
        encoded = msgspec.json.encode(parameters)
        copy = msgspec.json.decode(encoded, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise wrong from error
    if len(encoded) > MAX_PARAMETER_BYTES:
        raise ApplianceError("too_large", f"parameters are over {MAX_PARAMETER_BYTES // 1024} KiB", hint="ask in parts")
    if _has_huge_number(copy):
        raise wrong
    return copy


def _has_huge_number(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_huge_number, value.values()))
    if isinstance(value, list):
        return any(map(_has_huge_number, value))
    return isinstance(value, int) and not -_INT64 <= value < _INT64


def _refused(message: str) -> ApplianceError:
    return ApplianceError("query_refused", message, hint="queries only read: MATCH … WHERE … RETURN …, values as parameters")
