"""What a short message refers to. Owns the reading of a conversation for routing: the last message, and the question that it goes on from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.contracts.llm.v1.api import Message
from appliance.language.query import analyse_query

_ENOUGH_TERMS: Final = 3  # as in the search for sources (chat_turn): fewer content terms say too little alone
_LOOK_BACK: Final = 6  # messages of the user
_LONGEST_LINK: Final = 80  # characters of a message that begins like a follow-up
_LINK: Final = re.compile(
    r"\s*(?:and|what about|how about|also|same (?:for|with)|but|then|ok(?:ay)?,? (?:and|but)|а|и|ну а|а если|а что|тогда|также|то же|что насч[её]т|как насч[её]т)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be routed.

    Attributes:
        text: the last message of the user.
        before: the nearest earlier question that says enough by itself; "" when ``text`` needs none, or there is none.
    """

    text: str
    before: str = ""


def read_conversation(messages: Sequence[Message]) -> Asked:
    """See :class:`Asked`."""
    asked = [message.content for message in messages if message.role == "user"][-_LOOK_BACK:]
    text = asked[-1] if asked else (messages[-1].content if messages else "")
    if len(asked) < 2 or not says_little(text):
        return Asked(text)
    return Asked(text, next((one for one in reversed(asked[:-1]) if not says_little(one)), ""))


def says_little(text: str) -> bool:
    """Whether a message is likely to lean on the one before ("and in May?", «а в мае?»)."""
    if len(text) <= _LONGEST_LINK and _LINK.match(text):
        return True
    return len(text) <= _LONGEST_LINK and len(analyse_query(text).terms) < _ENOUGH_TERMS
