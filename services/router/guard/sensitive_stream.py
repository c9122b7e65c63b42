"""Masks secrets and personal data in a streaming answer. What they are is ``appliance.guard``; this holds back what may become one.

A *run* is text that one detector may want as a whole: digits with what people write between them, a word that begins as a key does, the value after
"password:", credentials in an address, a word that may be a mail address. A run ends where it cannot go on, or at ``LONGEST``; then the detectors look at it
with what stands left of it. Keys and private keys longer than that are swallowed to their end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Final

from appliance.contracts.guard.v1.api import Action
from appliance.guard.hits import without_overlaps
from appliance.guard.personal_data import find_personal_data
from appliance.guard.plain_text import PlainText
from appliance.guard.scan import MASK
from appliance.guard.secret_values import LONGEST_PEM, PREFIXES, find_secrets
from services.router.guard.stream_stage import LONGEST, Decided, StreamStage

_UNSEEN: Final = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_DIGITS: Final = re.compile(rf"\d[\d \t().,/№N\u00a0\u2000-\u2015\u202f\u2212\u3000{_UNSEEN}-]{{0,{LONGEST - 1}}}")
_KEY: Final = re.compile(rf"[A-Za-z0-9_.{_UNSEEN}-]{{1,{LONGEST}}}")
_KEY_SIGN: Final = re.compile(rf"[A-Za-z0-9_.{_UNSEEN}-]*")
_MAIL: Final = re.compile(r"[A-Za-z0-9_.+%'-]{1,64}(?:@[A-Za-z0-9.-]{0,63})?")
_CREDENTIALS: Final = re.compile(r"://[^\s/:@]{0,40}(?::[^\s/@]{0,80}(?:@[\w\[]?)?)?")
_NAMED_LEFT: Final = re.compile(
    r"(?:pass(?:word|wd|phrase)|пароль|пароля|pwd|secret|token|secret_?key|api[_-]?key|access_key|секретный ключ|токен)[\"'`*]{0,3}"
    r"(?:[ \t]{1,2}(?:is now|от [\w.-]{1,30}))?[ \t]{0,3}\Z"
)
_VALUE: Final = re.compile(r"(?:[:=]{1,2}>?|[—–]|is|это)[ \t]{0,3}[\"'`«*]{0,3}[^\s\"'`»<>]{0,100}")
_NAMING: Final = ("is", "это")
_PEM_HEAD: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_HEAD_SO_FAR: Final = re.compile(r"-{1,5}\Z|-----B?E?G?I?N?\Z|-----BEGIN [A-Z0-9 ]{0,60}-{0,5}\Z")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\:,.()]*")
_PEM_TAIL: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")
_PEM_TAIL_SO_FAR: Final = re.compile(r"-{1,5}\Z|-----E?N?D?\Z|-----END [A-Z0-9 ]{0,60}-{0,5}\Z")


def _beginnings() -> str:
    """A key's fixed beginning at the begin of a word, or as much of it as the text has so far."""
    parts = sorted({re.escape(prefix[:length]) + r"\Z" for prefix in PREFIXES for length in range(1, len(prefix))})
    return "|".join([*map(re.escape, PREFIXES), *parts])


_SECRET_START: Final = (
    r"[:=—–]|-(?:----BEGIN|----[BEGI]{0,4}\Z|-{0,3}\Z)|(?<![A-Za-z0-9_-])(?=[" + "".join(sorted({prefix[0] for prefix in PREFIXES})) + "iэ])"
    rf"(?:(?<!\w)(?:(?:is|это)(?!\w)|(?:i|э|эт)\Z)|{_beginnings()})"
)
_PII_START: Final = r"\d|(?<![A-Za-z_.+%'-])[A-Za-z]"
_STARTS: Final = {
    (True, False): re.compile(_SECRET_START),
    (False, True): re.compile(_PII_START),
    (True, True): re.compile(f"{_SECRET_START}|{_PII_START}"),
}


class SensitiveStream(StreamStage):
    """One answer.

    Args:
        actions: ``secret`` and ``pii`` → ``mask`` or ``block`` (others are left out).

    Attributes:
        found: how often (policy, kind, action).
    """

    CONTEXT: ClassVar[int] = 64

    def __init__(self, actions: Mapping[str, Action]) -> None:
        super().__init__()
        self._actions = actions
        self.trigger = _STARTS["secret" in actions, "pii" in actions]
        self._swallows: str = ""
        self._swallowed = 0
        self.found: Counter[tuple[str, str, Action]] = Counter()

    def feed(self, piece: str, *, ended: bool = False) -> str:
        """See the base class."""
        out = super().feed(piece, ended=ended)
        self.busy = self.busy or bool(self._swallows)
        return out

    def _next(self, text: str, at: int) -> int:
        if self._swallows:
            return at if at < len(text) else -1
        found = self.trigger.search(text, at)
        return -1 if found is None else found.start()

    def _decide(self, text: str, start: int, *, ended: bool) -> Decided | None:
        if self._swallows:
            return self._swallow(text, start, ended=ended)
        sign = text[start]
        if sign == "-" and "secret" in self._actions:
            return self._private_key(text, start, ended=ended)
        end = self._run_end(text, start)
        if end >= len(text) and not ended and end - start < LONGEST:
            return None
        if end <= start + 1 and not sign.isdigit():
            return Decided(start + 1, sign)
        run = text[start:end]
        if run.isalpha() and not run.startswith(PREFIXES):
            return Decided(end, run)  # a word: nothing in it to look at
        return self._screened(text, start, end)

    def _run_end(self, text: str, start: int) -> int:
        """Where the run at ``start`` ends so far."""
        sign = text[start]
        ends = [start + 1]
        if "secret" in self._actions:
            if sign in ":=—–" or text.startswith(_NAMING, start):
                ends.append(self._named_end(text, start))
            elif sign.isascii() and sign.isalpha() and not (text[start - 1].isalnum() or text[start - 1] in "_-"):
                word = _KEY.match(text, start)
                if word is not None and (
                    word.group().startswith(PREFIXES) or (word.end() == len(text) and any(p.startswith(word.group()) for p in PREFIXES))
                ):
                    ends.append(word.end())
        if "pii" in self._actions:
            form = _DIGITS if sign.isdigit() else _MAIL if sign.isascii() and sign.isalpha() else None
            if form is not None and (run := form.match(text, start)) is not None:
                ends.append(run.end())
        return max(ends)

    def _named_end(self, text: str, start: int) -> int:
        if text[start] == ":" and "://".startswith(text[start : start + 3]):
            found = _CREDENTIALS.match(text, start)
            return found.end() if found is not None else min(len(text), start + 3)
        if _NAMED_LEFT.search(text[max(0, start - 56) : start].lower()) is None:
            return start + 1
        value = _VALUE.match(text, start)
        return value.end() if value is not None else start + 1

    def _screened(self, text: str, start: int, end: int) -> Decided:
        """The run with what the detectors find in it behind masks."""
        first = max(0, start - self.CONTEXT)
        plain = PlainText(text[first : end + 1])
        hits = [*(find_secrets(plain) if "secret" in self._actions else ()), *(find_personal_data(plain) if "pii" in self._actions else ())]
        out: list[str] = []
        at = start
        for hit in without_overlaps(hits):
            begin, stop = max(first + hit.start, at), min(first + hit.end, end)
            if begin >= stop:
                continue
            if self._count(hit.policy, hit.kind):
                return Decided(start, "")
            out += (text[at:begin], MASK)
            at = stop
        if end - start >= LONGEST and text.startswith(PREFIXES, start) and "secret" in self._actions:
            if at < end and self._count("secret", "long_key"):
                return Decided(start, "")
            if at < end:
                out, at = [MASK], end
            self._swallows = "key"
        return Decided(end, "".join([*out, text[at:end]]))

    def _private_key(self, text: str, start: int, *, ended: bool) -> Decided | None:
        head = _PEM_HEAD.match(text, start)
        if head is not None:
            self._swallows = "pem"
            return Decided(start, "") if self._count("secret", "private_key") else Decided(head.end(), MASK)
        if not ended and len(text) - start < LONGEST and _PEM_HEAD_SO_FAR.match(text, start) is not None:
            return None
        return Decided(start + 1, text[start])

    def _swallow(self, text: str, start: int, *, ended: bool) -> Decided | None:
        if self._swallows == "key":
            body = _KEY_SIGN.match(text, start)
            end = body.end() if body is not None else start
            if end < len(text):
                self._swallows = ""
            return Decided(end, "")
        body = _PEM_BODY.match(text, start)
        end = body.end() if body is not None else start
        if end > start:
            self._swallowed += end - start
            return Decided(end, "")
        if (tail := _PEM_TAIL.match(text, start)) is not None:
            self._swallows, self._swallowed = "", 0
            return Decided(tail.end(), "")
        if text[start] == "-":
            if not ended and len(text) - start < LONGEST and _PEM_TAIL_SO_FAR.match(text, start) is not None:
                return None
            if self._swallowed < LONGEST_PEM:
                self._swallowed += 1
                return Decided(start + 1, "")
        self._swallows, self._swallowed = "", 0
        return Decided(start, "")

    def _count(self, policy: str, kind: str) -> bool:
        """Note it; whether it ends the answer."""
        action = self._actions[policy]
        self.found[policy, kind, action] += 1
        self.stopped = action == "block"
        return self.stopped
