"""Puts a built chat model together with its fallback. Owns nothing that lives: what is served under which alias is known by the caller, who is asked each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.llm.bootstrap import BuiltModel
from services.llm.fallback_chat_model import FallbackChatModel, Served


def with_fallback(built: BuiltModel, served: Callable[[str], Served | None]) -> BuiltModel:
    """``built``, handing on to ``spec.fallback`` what it cannot answer.

    Args:
        built: as ``build_chat_model`` gives it.
        served: alias → what is served under it now; None when nothing is. Asked when a fallback is needed, so a switch of models is followed.
    """
    alias = built.spec.fallback
    if not alias:
        return built
    return replace(built, model=FallbackChatModel(built.spec.alias, built.model, lambda: served(alias)))
