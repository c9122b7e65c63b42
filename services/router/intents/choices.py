"""The user's answer to "which of these is it?". Owns recognising it; the question itself is written in ``services.router.clarifying``.

The question is in the conversation as the assistant's last message, a numbered list of titles of routes; the answer is a number of it, or a title.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.routing import Route

_LONGEST_ANSWER: Final = 200
_MOST_LINES: Final = 20
_LINE: Final = re.compile(r"(\d{1,2})\. (.+)")
_NUMBER: Final = re.compile(r"\s*(\d{1,2})\s*[.)]?\s*")


def chosen_route(messages: Sequence[Message], routes: Callable[[], Iterable[Route]]) -> Route | None:
    """The route that the last message picks, when the one before offered it; None otherwise. ``routes`` are asked for only when there may be a choice."""
    if len(messages) < 2 or messages[-2].role != "assistant" or messages[-1].role != "user" or len(messages[-1].content) > _LONGEST_ANSWER:
        return None
    titled = {_plain(title): route for route in routes() for title in (route.name, *route.titles.values())}
    offered = [
        (int(match[1]), titled[_plain(match[2])])
        for line in messages[-2].content.splitlines()[:_MOST_LINES]
        if (match := _LINE.fullmatch(line.strip())) and _plain(match[2]) in titled
    ]
    if len(offered) < 2:  # a list of something else
        return None
    number = _NUMBER.fullmatch(messages[-1].content)
    if number is not None:
        return dict(offered).get(int(number[1]))
    said = titled.get(_plain(messages[-1].content))
    return said if said in [route for _, route in offered] else None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .!?")
