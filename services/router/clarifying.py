"""What the box says when it does not know which way to go: it asks, and offers the ways. Texts in the user's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.contracts.router.v1.api import StepEvent
from appliance.contracts.router.v1.routing import Decision, Route

_MOST_OPTIONS: Final = 4
_ASK: Final[Mapping[str, str]] = {
    "en": "I am not sure what you need. Which of these is it?",
    "ru": "Не могу уверенно понять, что вам нужно. Что из этого вы имеете в виду?",
}


def clarifying_question(decision: Decision, language: str) -> tuple[str, StepEvent]:
    """The question as Markdown, and the step that lets a page show buttons."""
    words = language if language in _ASK else "en"
    options = [(route, share) for route, share in decision.options[:_MOST_OPTIONS]]
    lines = [f"{number}. {_title(route, words)}" for number, (route, _) in enumerate(options, 1)]
    detail = [{"route": route.name, "agent": route.agent, "title": _title(route, words), "confidence": round(share, 3)} for route, share in options]
    return "\n".join([_ASK[words], "", *lines]), StepEvent("ask", {"options": detail})


def _title(route: Route, language: str) -> str:
    return route.titles.get(language) or route.titles.get("en") or route.name
