"""The reranker puts the passage that answers first."""

from appliance.smoke.box import SmokeBox, expect

TITLE = "three candidates in the right order"
_DOCUMENTS = ("The canteen is open from 11 to 14.", "The warranty of the pump ends after 24 months.", "The pump weighs 40 kg.")
_RIGHT = (1, 2, 0)


def run(box: SmokeBox) -> str:
    """The passage that answers, then the one about the same thing, then the other one."""
    answer = box.post("/v1/rerank", {"query": "When does the warranty of the pump end?", "documents": list(_DOCUMENTS)})
    order = tuple(result["index"] for result in answer["results"])
    scores = [result["relevance_score"] for result in answer["results"]]
    expect(order == _RIGHT, f"the order is {order}, not {_RIGHT}")
    expect(scores == sorted(scores, reverse=True), f"the scores do not fall: {scores}")
    return f"{answer['model']}: " + ", ".join(f"{score:.3f}" for score in scores)
