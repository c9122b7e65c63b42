"""Takes the teeth out of links and images in a streaming answer: nothing that a renderer makes of it leads, or loads from, outside the box.

Owns: what Markdown, HTML and bare text turn into addresses, and the smallest change that makes each of them plain words:

- ``![``: a space breaks it (``! [``), so that an image is at most a link;
- ``](target)`` and ``]: target`` to outside: a space breaks them (``] (``, ``] :``);
- ``scheme://host`` and ``www.host``: scheme gone, dots of the host bracketed (``evil[.]example``); own origins stay;
- ``<tag``, ``<!``, ``<?``, ``<scheme:``: the ``<`` becomes ``‹``;
- entities that stand for letters, digits and the signs of an address are read first.

Fenced code is left as it is, because no renderer makes an address of it; but only as long as every fence of the answer is one that all of them read alike
(column 0, plain closing line), and never for languages that chat pages are known to draw (HTML, SVG, Mermaid).
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from appliance.contracts.guard.v1.api import Action
from services.router.guard.link_targets import is_local
from services.router.guard.stream_stage import LONGEST, Decided, StreamStage

_SCHEMES: Final = ("http", "https", "ftp", "ftps", "ws", "wss")
_WORD: Final = r"(?<![A-Za-z0-9])"
_ADDRESS_WORD: Final = r"[hH](?:[tT](?:[tT](?:[pP](?:[sS]?:|[sS]?\Z)|\Z)|\Z)|\Z)|[fF](?:[tT](?:[pP](?:[sS]?:|[sS]?\Z)|\Z)|\Z)|[wW](?:[sS](?:[sS]?:|[sS]?\Z)|[wW](?:[wW](?:\.|\Z)|\Z)|\Z)"
_FENCE_SIGN: Final = r"`{3}|~{3}|`{1,2}\Z|~{1,2}\Z"
START: Final = re.compile(rf"!(?:\[|\Z)|\](?:[(:]|\Z)|<(?:[A-Za-z/!?]|\Z)|&(?:[#A-Za-z]|\Z)|:(?:[/\\]|\Z)|{_FENCE_SIGN}|{_WORD}(?:{_ADDRESS_WORD})")
_IN_CODE: Final = re.compile(_FENCE_SIGN)
TRIGGER: Final = re.compile(rf"[!\]<&:`~]|{_WORD}(?:{_ADDRESS_WORD})")

_HOST: Final = r"[^\s/?#\\<>\"'`()\[\]{}|^!,;*&]{0,100}"
_ADDRESS: Final = re.compile(rf"([hH][tT][tT][pP][sS]?|[fF][tT][pP][sS]?|[wW][sS][sS]?):([/\\]{{1,8}})({_HOST})")
_ADDRESS_SO_FAR: Final = re.compile(
    r"(?:[hH]|[hH][tT]|[hH][tT][tT]|[hH][tT][tT][pP][sS]?:?|[fF]|[fF][tT]|[fF][tT][pP][sS]?:?|[wW]|[wW][sS][sS]?:?|[wW][wW][wW]?)\Z"
)
_WWW: Final = re.compile(rf"[wW][wW][wW]\.({_HOST})")
_ANY_SCHEME: Final = re.compile(rf":[/\\]{{2,8}}({_HOST})")
_INNER_DOT: Final = re.compile(r"\.(?=\w)")
_TARGET: Final = re.compile(r"\][(:](\s{0,32})(?:<([^>\n]{0,120})>?|((?:\\[\s\S]|[^\s)\\]){0,120}\\?))")
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ENTITY_SO_FAR: Final = re.compile(r"&(?:#?|#[0-9]{1,7}|#[xX][0-9a-fA-F]{0,6}|[A-Za-z][A-Za-z0-9]{0,30})\Z")
_PLAIN_ENTITY: Final = frozenset(":/\\.@%")
_TAG: Final = re.compile(r"</?([A-Za-z][A-Za-z0-9+.-]{0,15})")
_FENCE_LINE: Final = re.compile(r"(`{3,}|~{3,})([^\n]*)")
_DRAWN: Final = frozenset({"html", "htm", "xhtml", "svg", "xml", "mermaid", "markdown", "md", "javascript", "js", "jsx", "tsx", "vue", "css", "latex", "tex", "math", "dot", "graphviz", "plantuml", "vega", "vega-lite"})  # fmt: skip


class LinkStream(StreamStage):
    """One answer.

    Args:
        actions: ``link`` and ``image`` → action.
        origins: where links may lead (``https://box.example``).

    Attributes:
        found: how often (policy, kind, action).
    """

    def __init__(self, actions: Mapping[str, Action], origins: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._actions = actions
        self._origins = origins
        self._fence = ""  # the marks of an open fence
        self._is_code = False  # and its content is left alone
        self._is_regular = True  # every fence so far is one that all renderers read alike
        self.found: Counter[tuple[str, str, Action]] = Counter()

    def feed(self, piece: str, *, ended: bool = False) -> str:
        """See the base class."""
        out = super().feed(piece, ended=ended)
        self.busy = self.busy or bool(self._fence)
        return out

    def _next(self, text: str, at: int) -> int:
        found = (_IN_CODE if self._is_code else START).search(text, at)
        return -1 if found is None else found.start()

    def _decide(self, text: str, start: int, *, ended: bool) -> Decided | None:
        match text[start]:
            case "`" | "~":
                return self._on_fence(text, start, ended=ended)
            case "!":
                return self._on_image(text, start, ended=ended)
            case "]":
                return self._on_target(text, start, ended=ended)
            case "<":
                return self._on_tag(text, start, ended=ended)
            case "&":
                return self._on_entity(text, start, ended=ended)
            case _:
                return self._on_address(text, start, ended=ended)

    def _on_image(self, text: str, start: int, *, ended: bool) -> Decided | None:
        if start + 2 >= len(text) and not ended:
            return None
        if not text.startswith("[", start + 1):
            return Decided(start + 1, "!")
        if text[start + 2 : start + 3].isdigit():  # "Done![1]" is far more often a mark after a shout than an image
            return Decided(start + 1, self._replaced("image", "!", "! "))
        return Decided(start + 1, self._changed("image", "markdown_image", "!", "! "))

    def _on_target(self, text: str, start: int, *, ended: bool) -> Decided | None:
        found = _TARGET.match(text, start)
        if found is None:
            return Decided(start + 1, "]") if ended or start + 1 < len(text) else None
        if found.end() == len(text) and not ended:  # the form itself is bounded
            return None
        target = found[2] if found[2] is not None else found[3]
        is_cut = len(target) >= 120 or len(found[1]) >= 32
        sign = text[start + 1]
        if not is_cut and is_local(target, self._origins):
            return Decided(start + 2, f"]{sign}")
        return Decided(start + 2, self._changed("link", "markdown_link" if sign == "(" else "reference", f"]{sign}", f"] {sign}"))

    def _on_tag(self, text: str, start: int, *, ended: bool) -> Decided | None:
        tag = _TAG.match(text, start)
        end = start + 2 if tag is None else tag.end()
        if end >= len(text) and not ended and end - start < 18:
            return None
        is_meant = tag is not None and end < len(text) and (text[end].isspace() or text[end] in "/>:")
        return Decided(start + 1, self._changed("link", "html_tag", "<", "‹") if is_meant else self._replaced("link", "<", "‹"))

    def _on_entity(self, text: str, start: int, *, ended: bool) -> Decided | None:
        found = _ENTITY.match(text, start)
        if found is None:
            if not ended and _ENTITY_SO_FAR.match(text, start) is not None:
                return None
            return Decided(start + 1, "&")
        said = html.unescape(found.group())
        if self._action("link") in {"mask", "block"} and len(said) == 1 and (said.isalnum() or said in _PLAIN_ENTITY):
            return Decided(found.end(), said, again=True)
        return Decided(found.end(), found.group())

    def _on_address(self, text: str, start: int, *, ended: bool) -> Decided | None:
        if not ended and (_ADDRESS_SO_FAR.match(text, start) is not None or (len(text) - start < 3 and text[start] == ":" and text[-1] in ":/\\")):
            return None
        found = _ADDRESS.match(text, start) or _WWW.match(text, start) or _ANY_SCHEME.match(text, start)
        if found is None:
            return Decided(start + 1, text[start])
        host = found.group(found.re.groups)
        if found.end() == len(text) and not ended and len(host) < 100:
            return None
        is_plain = found.re is _ADDRESS and found[2] == "//" and not text.startswith("\\", found.end())
        if is_plain and f"{found[1]}://{host.rstrip('.:')}".lower() in self._origins:
            return Decided(found.end(), found.group())
        front = ": " if found.re is _ANY_SCHEME else ""
        return Decided(found.end(), self._changed("link", "address", found.group(), front + _INNER_DOT.sub("[.]", host)))

    def _on_fence(self, text: str, start: int, *, ended: bool) -> Decided | None:
        found = _FENCE_LINE.match(text, start)
        if found is None:
            if not ended and len(text) - start < 3 and set(text[start:]) == {text[start]}:
                return None
            return Decided(start + 1, text[start])
        is_whole = found.end() < len(text)
        if not is_whole and not ended and found.end() - start < LONGEST:
            return None
        marks, rest = found.groups()
        if self._fence and marks[0] != self._fence[0]:
            return Decided(start + len(marks), marks)
        is_plain = text[start - 1] == "\n" and (is_whole or ended) and found.end() - start < LONGEST and "`" not in rest
        if not is_plain:
            self._is_regular = self._is_code = False
            return Decided(start + len(marks), marks)
        if not self._fence:
            self._fence = marks
            self._is_code = self._is_regular and (rest.split() or [""])[0].strip("{}.").lower() not in _DRAWN
            return Decided(found.end(), found.group())
        if len(marks) >= len(self._fence) and not rest.strip():
            self._fence, self._is_code = "", False
            return Decided(found.end(), found.group())
        self._is_regular = self._is_code = False
        return Decided(start + len(marks), marks)

    def _action(self, policy: str) -> Action:
        return self._actions.get(policy, "pass")

    def _replaced(self, policy: str, before: str, after: str) -> str:
        return after if self._action(policy) in {"mask", "block"} else before

    def _changed(self, policy: str, kind: str, before: str, after: str) -> str:
        """Note it; what goes out instead of ``before``."""
        action = self._action(policy)
        if action != "pass":
            self.found[policy, kind, action] += 1
        self.stopped = self.stopped or action == "block"
        return self._replaced(policy, before, after)
