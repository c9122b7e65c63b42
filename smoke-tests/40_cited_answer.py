"""An own document in, a cited answer out, and no answer where there is no source. Cleans up after itself, and after runs that were killed."""

import secrets
from typing import Any

from appliance.smoke.box import SmokeBox, expect, shown
from appliance.smoke.own_space import add_text, own_space

TITLE = "an answer with a citation that holds, and none without a source"
SECONDS = 60.0


def run(box: SmokeBox) -> str:
    """A fact that nobody can know but from the document: a number drawn just now."""
    number = f"{secrets.randbelow(9_000_000) + 1_000_000}"
    with own_space(box) as space:
        text = f"Smoke test\n\nThe inventory number of the calibration bench is {number}.\n\nThe bench stands in hall 4.\n"
        document = add_text(box, space, "bench.txt", text)
        quote = _cited(box, space, document, number)
        refusal = _refused(box, space)
    expect(box.answer("GET", f"/api/documents/{document}").status_code == 404, "the document outlived its space")
    return f"quoted {shown(quote, 80)!r}; without a source: {shown(refusal, 60)!r}"


def _cited(box: SmokeBox, space: str, document: str, number: str) -> str:
    message = _ask(box, space, "What is the inventory number of the calibration bench?")
    expect(number in message["content"], f"the answer does not have the number {number}: {shown(message['content'])}")
    expect(message["annotations"], f"the answer has no citation: {shown(message['content'])}")
    for annotation in message["annotations"]:
        citation = annotation["file_citation"]
        expect(citation["file_id"] == document, "a citation of another document")
        text = box.get(f"/api/documents/{document}/text", start=str(citation["start"]), end=str(citation["end"]))["text"]
        expect(text == citation["quote"], f"the citation does not stand where it points: {shown(citation['quote'])} / {shown(text)}")
    quotes = [str(annotation["file_citation"]["quote"]) for annotation in message["annotations"]]
    expect(any(number in quote for quote in quotes), f"no citation has the number: {shown(quotes)}")
    return next(quote for quote in quotes if number in quote)


def _refused(box: SmokeBox, space: str) -> str:
    message = _ask(box, space, "Who won the chess championship of 1972?")
    expect(not message["annotations"], f"a citation for what no document says: {shown(message)}")
    return str(message["content"])


def _ask(box: SmokeBox, space: str, question: str) -> Any:
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "spaces": [space]}
    return box.post("/v1/chat/completions", body)["choices"][0]["message"]
