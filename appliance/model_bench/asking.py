"""One question to a chat model of a running box, over ``POST /v1/chat/completions``, with its times. Documents are left out (``spaces: []``)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from appliance.kit.errors import OUTCOMES, ApplianceError

_AGAIN: Final = frozenset({"rate_limited", "overloaded"})
_TRIES: Final = 4
_MOST_WAIT_SECONDS: Final = 15.0


@dataclass(slots=True)
class Answered:
    """What came. ``code``: of the error, "" = it went well; ``first_seconds``: until the first token, from the first byte of the request."""

    text: str = ""
    code: str = ""
    reason: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0


class Asking:
    """Asks one model of one box.

    Args:
        client: with address and key of the box.
        model: alias.
    """

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self._client = client
        self._model = model

    async def ask(self, prompt: str, *, max_tokens: int, patient: bool = True, **more: object) -> Answered:
        """One answer, streamed. ``patient``: what is refused because the box is busy is asked again.

        Raises:
            ApplianceError: ``unavailable`` when the box cannot be reached, and refusals that hold for every question (``unauthenticated``, ``forbidden``,
                ``model_not_found``).
        """
        body = {
            "model": self._model, "messages": [{"role": "user", "content": prompt}], "stream": True, "stream_options": {"include_usage": True},
            "spaces": [], "agent": "documents", "max_tokens": max_tokens, **more,
        }  # fmt: skip
        for attempt in range(_TRIES):
            answered, wait = await self._once(body)
            if answered.code not in _AGAIN or not patient or attempt == _TRIES - 1:
                break
            await asyncio.sleep(min(wait, _MOST_WAIT_SECONDS))
        if answered.code in {"unauthenticated", "forbidden", "model_not_found"}:
            raise ApplianceError(answered.code, f"the box refuses: {answered.text}", hint="see: appliance models list")
        return answered

    async def _once(self, body: Mapping[str, object]) -> tuple[Answered, float]:
        answered, begun = Answered(), time.perf_counter()
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code >= 400:
                    await response.aread()
                    answered.code, answered.text = _refusal(response)
                    return answered, _wait(response)
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        _take(answered, json.loads(line[6:]), begun)
        except httpx.TimeoutException:
            answered.code = "upstream_timeout"
        except httpx.TransportError as exc:
            raise ApplianceError("unavailable", "the box cannot be reached", hint="start it with: appliance up") from exc
        except ValueError:
            answered.code = "upstream_failed"
        answered.seconds = time.perf_counter() - begun
        return answered, 0.0

    async def many(self, prompts: Sequence[str], *, max_tokens: int) -> tuple[list[Answered], float]:
        """All at once; the answers, and the seconds until the last one ended."""
        begun = time.perf_counter()
        answers = await asyncio.gather(*(self.ask(prompt, max_tokens=max_tokens, patient=False) for prompt in prompts), return_exceptions=True)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        return [one for one in answers if isinstance(one, Answered)], time.perf_counter() - begun


def _take(answered: Answered, event: Mapping[str, Any], begun: float) -> None:
    if isinstance(error := event.get("error"), dict):
        answered.code = str(error.get("code") or "internal")
        return
    if isinstance(usage := event.get("usage"), dict):
        answered.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        answered.completion_tokens = int(usage.get("completion_tokens") or 0)
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        text, calls = delta.get("content") or "", delta.get("tool_calls") or ()
        if (text or calls) and not answered.first_seconds:
            answered.first_seconds = time.perf_counter() - begun
        answered.text += text
        answered.reason = choice.get("finish_reason") or answered.reason
        for call in calls:
            function = call.get("function") or {}
            answered.calls.append((str(function.get("name") or ""), str(function.get("arguments") or "")))


def _refusal(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["error"]
        code = str(error.get("code") or "internal")
        return (code if code in OUTCOMES else "internal"), str(error.get("message") or "")[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "internal", f"the box answered {response.status_code}"


def _wait(response: httpx.Response) -> float:
    try:
        return max(0.1, float(response.headers.get("retry-after", "1")))
    except ValueError:
        return 1.0
