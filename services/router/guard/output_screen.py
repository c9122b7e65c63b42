"""The screen of one answer: prompt leak, then secrets and personal data, then links and images. Implements ``OutputScreen``.

Most pieces hold nothing that may begin anything: they go through as they came, at the price of one search each. Policies that only log look at the whole
answer when it ends. The text that goes out does not depend on how it came in pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from appliance.contracts.guard.v1.api import Action, Finding
from appliance.guard.personal_data import find_personal_data
from appliance.guard.plain_text import PlainText
from appliance.guard.policy import Policy
from appliance.guard.secret_values import find_secrets
from services.router.guard.link_stream import TRIGGER as LINK_TRIGGER
from services.router.guard.link_stream import LinkStream
from services.router.guard.prompt_leak import LeakWatch, fingerprints
from services.router.guard.sensitive_stream import SensitiveStream

_LOOKED_AT: Final = 65_536
_OVERLAP: Final = 128
_GONE_BY: Final = 128  # pieces; each has at least one character, and no stage looks further to the left


class AnswerScreen:
    """See the module.

    Args:
        policy: in force for this turn.
        origins: where links may lead besides relative ones.
        secret_prompt: what must not be repeated.
    """

    def __init__(self, policy: Policy, origins: frozenset[str] = frozenset(), secret_prompt: str = "") -> None:
        leak = policy.action("prompt_leak", "output")
        sensitive = {name: policy.action(name, "output") for name in ("secret", "pii")}
        changed = {name: action for name, action in sensitive.items() if action in {"mask", "block"}}
        links = {name: policy.action(name, "output") for name in ("link", "image")}
        self._leak = LeakWatch(secret_prompt, leak) if leak != "pass" and secret_prompt and fingerprints(secret_prompt) else None
        self._leak_action: Action = leak
        self._sensitive = SensitiveStream(changed) if changed else None
        self._links = LinkStream(links, origins) if set(links.values()) != {"pass"} else None
        self._logged = {name: action for name, action in sensitive.items() if action == "log"}
        self._gone_by: list[str] = []
        self._seen: list[str] = []
        self._seen_size = 0
        self._counts: Counter[tuple[str, str, Action]] = Counter()
        self._blocked = False

    @property
    def blocked(self) -> bool:
        """The answer was broken off."""
        return self._blocked

    @property
    def findings(self) -> Sequence[Finding]:
        """So far; what is only logged is known after :meth:`close`."""
        if not self._counts and self._leak is None and not any(stage.found for stage in (self._sensitive, self._links) if stage is not None):
            return ()
        counts = Counter(self._counts)
        if self._leak is not None and self._leak.leaks:
            counts["prompt_leak", "copy", self._leak_action] = 1
        for stage in (self._sensitive, self._links):
            if stage is not None:
                counts.update(stage.found)
        return tuple(Finding(policy, kind, action, "output", count) for (policy, kind, action), count in sorted(counts.items()))

    def feed(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """See the contract."""
        if self._blocked:
            return ()
        leak, sensitive, links = self._leak, self._sensitive, self._links
        out: list[str] = []
        for piece in pieces:
            if self._logged:
                self._note(piece)
            if leak is not None:
                piece = leak.feed(piece)  # noqa: PLW2901 - what is left of it
            if not piece:
                pass
            elif (sensitive is None or not (sensitive.busy or sensitive.trigger.search(piece))) and (
                links is None or not (links.busy or LINK_TRIGGER.search(piece))
            ):
                self._gone_by.append(piece)  # nothing in it concerns a stage
                out.append(piece)
            elif through := self._through(piece, ended=False):
                out.append(through)
            if leak is not None and leak.stopped:
                self._blocked = True
            if self._blocked:
                break
        if len(self._gone_by) > _GONE_BY:
            self._tell_stages()
        return tuple(out)

    def close(self) -> tuple[str, ...]:
        """See the contract."""
        rest = ""
        if not self._blocked and (self._leak is not None or any(stage.busy for stage in (self._sensitive, self._links) if stage is not None)):
            rest = self._through(self._leak.close() if self._leak is not None else "", ended=True)
        self._look()
        return (rest,) if rest else ()

    def _tell_stages(self) -> None:
        """The stages learn what went by: it stands left of what comes."""
        gone = "".join(self._gone_by[-_GONE_BY:])
        self._gone_by.clear()
        for stage in (self._sensitive, self._links):
            if stage is not None:
                stage.pass_by(gone)

    def _through(self, text: str, *, ended: bool) -> str:
        if self._gone_by:
            self._tell_stages()
        if self._sensitive is not None:
            text = self._sensitive.feed(text, ended=ended)
            self._blocked = self._blocked or self._sensitive.stopped
        if self._links is not None:
            text = self._links.feed(text, ended=ended)
            self._blocked = self._blocked or self._links.stopped
        return text

    def _note(self, piece: str) -> None:
        self._seen.append(piece)
        self._seen_size += len(piece)
        if self._seen_size >= _LOOKED_AT:
            self._look(more=True)

    def _look(self, *, more: bool = False) -> None:
        """What the policies that only log find in the text since the last look."""
        if not self._logged or not self._seen:
            return
        text = "".join(self._seen)
        self._seen = [text[-_OVERLAP:]] if more else []
        self._seen_size = 0
        _count_logged(PlainText(text), self._logged, self._counts)


def _count_logged(text: PlainText, actions: Mapping[str, Action], counts: Counter[tuple[str, str, Action]]) -> None:
    hits = [*(find_personal_data(text) if "pii" in actions else ()), *(find_secrets(text) if "secret" in actions else ())]
    for hit in hits:
        counts[hit.policy, hit.kind, actions[hit.policy]] += 1
