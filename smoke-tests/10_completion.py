"""The chat model of the box answers, without documents."""

from appliance.smoke.box import SmokeBox, expect, shown

TITLE = "a completion of 10 tokens"
SECONDS = 60.0
_TOKENS = 10


def run(box: SmokeBox) -> str:
    """One unstreamed turn in no space; a model that only reads documents says that it has none."""
    body = {"model": "default", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": _TOKENS, "spaces": []}
    answer = box.post("/v1/chat/completions", body)
    choice = answer["choices"][0]
    expect(choice["message"]["content"].strip(), f"an empty answer: {shown(answer)}")
    expect(choice["finish_reason"] in {"stop", "length"}, f"finish_reason is {choice['finish_reason']!r}")
    return f"{answer['usage']['completion_tokens']} tokens: {shown(choice['message']['content'], 60)}"
