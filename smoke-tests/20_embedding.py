"""The embedding model gives a unit vector of the size that it has."""

import math

from appliance.smoke.box import SmokeBox, SmokeFailure, expect

TITLE = "an embedding: its size and its length"
_CLOSE = 1e-3


def run(box: SmokeBox) -> str:
    """Two texts; close in meaning must be closer than far."""
    models = [card["id"] for card in box.get("/v1/models")["data"] if card["kind"] == "embed"]
    if not models:
        raise SmokeFailure("no embedding model is listed", "name one in models.toml")
    texts = ["The pump must be switched off.", "Turn the pump off first.", "Holidays are in August."]
    data = box.post("/v1/embeddings", {"model": models[0], "input": texts})["data"]
    first, close, far = (row["embedding"] for row in data)
    expect(len(first) == len(close) == len(far) >= 64, f"vectors of {len(first)}, {len(close)}, {len(far)} numbers")
    norm = math.sqrt(sum(value * value for value in first))
    expect(abs(norm - 1) < _CLOSE, f"its length is {norm:.4f}, not 1")
    near, away = _cosine(first, close), _cosine(first, far)
    expect(near > away, f"a paraphrase is at {near:.2f}, something else at {away:.2f}", "the model may be damaged: appliance models verify")
    return f"{models[0]}: {len(first)} dimensions, length {norm:.4f}; paraphrase {near:.2f}, something else {away:.2f}"


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
