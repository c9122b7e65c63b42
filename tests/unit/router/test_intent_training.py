"""Training, calibration and the file of the classifier."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_encoder import HashingEncoder
from services.router.intents import grams
from services.router.intents.examples import Example
from services.router.intents.logistic import fit_logistic
from services.router.intents.margin_training import train_separators
from services.router.intents.meaning_training import train_head
from services.router.intents.model_file import read_model, write_model
from services.router.intents.training import Labelled, train_model
from services.router.intents.workbench import label
from tests.unit.router.intents_bed import rows

ROUTES = ("documents", "vacation", "invoices")


async def trained(encoder=None, labelled=None):
    examples = [Example(text, route) for text, route in (labelled or rows())]
    return train_model(ROUTES, await label(examples, ROUTES, encoder, lambda *_: None), 0.85)


@pytest.fixture(scope="module")
def model():
    import asyncio

    return asyncio.run(trained(HashingEncoder(64, ("en",))))


def best(model, text):
    words = model.words(text)
    return model.labels[int(words.shares.argmax())], model.judge(words, None)


def test_phrases_that_were_not_trained_with_find_their_route_in_both_languages(model):
    for text, route in (
        ("could you show the bills that are still open", "invoices"),
        ("i would like a week of vacation in august", "vacation"),
        ("покажите пожалуйста неоплаченный счёт за апрель", "invoices"),
        ("можно мне отпуска две недели", "vacation"),
        ("что в договорах сказано о гарантиях", "documents"),
    ):
        assert best(model, text)[0] == route, text


def test_foreign_questions_lie_below_the_floor(model):
    foreign = ["what is the height of the eiffel tower", "спой песню про кота", "how old is the universe", "кто написал войну и мир"]
    assert sum(best(model, text)[1].inside < 0 for text in foreign) >= 3
    assert best(model, "show me unpaid invoices for april")[1].inside >= 0


def test_confidence_is_high_where_it_is_right(model):
    assert best(model, "please book me annual leave in july")[1].confidence > 0.8
    assert best(model, "xyzzy")[1].confidence < best(model, "please book me annual leave in july")[1].confidence


def test_the_estimate_comes_from_examples_that_were_held_out(model):
    assert model.about["held_out"] == len(rows())
    assert model.about["estimate"]["accuracy"] > 0.9
    assert 0.5 <= model.about["estimate"]["out_of_scope_recall"] <= 1


async def test_labels_without_meaning_teach_nothing_and_the_estimate_says_so():
    shuffled = [route for _, route in rows()]
    np.random.default_rng(5).shuffle(shuffled)
    nonsense = await trained(labelled=list(zip([text for text, _ in rows()], shuffled, strict=True)))
    assert nonsense.about["estimate"]["accuracy"] < 0.6


def test_the_same_input_gives_the_same_numbers():
    labels = np.arange(40) % 2
    points = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    first, second = (train_head(points, labels, 2, seed=3) for _ in range(2))
    assert first.inner.tobytes() == second.inner.tobytes()
    texts = [grams.SparseText(np.array([int(label), 2]), np.ones(2, np.float32)) for label in labels]
    assert train_separators(texts, labels, 2, 4, 1).weights.tobytes() == train_separators(texts, labels, 2, 4, 1).weights.tobytes()


async def test_ten_examples_of_a_route_and_no_foreign_ones_are_enough_to_start():
    few, seen = [], {}
    for text, route in rows():
        seen[route] = seen.get(route, 0) + 1
        if route != "out_of_scope" and seen[route] <= 10:
            few.append((text, route))
    small = await trained(labelled=few)
    right = sum(best(small, text)[0] == route for text, route in rows() if route != "out_of_scope")
    assert right / (len(rows()) - 20) > 0.8


@pytest.mark.parametrize("labelled", [[("one", "documents")] * 3, [("a", "documents"), ("b", "documents"), ("c", "vacation"), ("d", "invoices")]])
async def test_too_few_examples_are_refused_by_name(labelled):
    with pytest.raises(ApplianceError, match="needs|has") as refused:
        await trained(labelled=labelled)
    assert refused.value.code == "invalid_request"


def test_a_model_comes_back_from_its_file_as_it_was(tmp_path, model):
    version = write_model(tmp_path / "router" / "intents.model", model)
    back = read_model(tmp_path / "router" / "intents.model")
    assert back.version == version and back.labels == model.labels and back.calibration == model.calibration
    vector = np.eye(1, 64, 3, dtype=np.float32)[0]
    text = "show me the open bills"
    assert np.allclose(back.judge(back.words(text), vector).shares, model.judge(model.words(text), vector).shares)
    assert [path.name for path in (tmp_path / "router").iterdir()] == ["intents.model"]


def test_any_changed_byte_is_noticed(tmp_path, model):
    file = tmp_path / "intents.model"
    write_model(file, model)
    whole = file.read_bytes()
    for place in (0, 9, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ApplianceError) as refused:
            read_model(file)
        assert refused.value.code == "snapshot_altered"


@pytest.mark.parametrize("damage", ["short", "header", "shape", "trailing", "nan"])
def test_a_file_with_a_right_digest_and_wrong_content_is_refused(tmp_path, model, damage):
    file = tmp_path / "intents.model"
    write_model(file, model)
    body = file.read_bytes()[:-32]
    length = int.from_bytes(body[8:16], "little")
    if damage == "short":
        body = body[:-8]
    elif damage == "header":
        body = body[:8] + (1 << 60).to_bytes(8, "little") + body[16:]
    elif damage == "shape":
        body = body[:16] + body[16 : 16 + length].replace(b'"shape":[3]', b'"shape":[9]') + body[16 + length :]
    elif damage == "trailing":
        body += b"\0" * 4
    else:
        body = body[: 16 + length] + np.float32(np.nan).tobytes() + body[16 + length + 4 :]
    file.write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(ApplianceError) as refused:
        read_model(file)
    assert refused.value.code == "snapshot_altered"


def test_separators_find_a_plane_that_exists():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    texts = [grams.SparseText(np.array([label, 3 + int(generator.integers(5))]), np.array([1.0, 0.5], np.float32)) for label in labels]
    found = train_separators(texts, labels, 3, 8, 0)
    assert all(int((text.weights @ found.weights[text.buckets] + found.bias).argmax()) == label for text, label in zip(texts, labels, strict=True))


def test_a_head_learns_what_a_line_cannot_separate():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(400, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = ((points[:, 0] > 0) ^ (points[:, 1] > 0)).astype(np.int64)
    head = train_head(points, labels, 2, 0)
    assert (head.logits(points).argmax(1) == labels).mean() > 0.9


def test_the_logistic_fit_recovers_a_known_slope():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(4000, 1))
    chances = 1 / (1 + np.exp(-(2 * values[:, 0] - 1)))
    fitted = fit_logistic(values, generator.random(4000) < chances, np.ones(4000))
    assert fitted.weights[0] == pytest.approx(2, abs=0.25) and fitted.bias == pytest.approx(-1, abs=0.2)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=2000))
def test_any_text_becomes_a_bounded_finite_vector(text):
    counts = grams.count_buckets(text, 1024)
    sparse = grams.weigh(counts, np.ones(1024, np.float32))
    assert np.isfinite(sparse.weights).all() and (np.diff(sparse.buckets) > 0).all()
    assert len(sparse.buckets) <= 1024 and float(sparse.weights @ sparse.weights) <= 4.001


def test_case_spacing_and_yo_do_not_matter():
    ones = np.ones(4096, np.float32)
    left, right = (grams.weigh(grams.count_buckets(text, 4096), ones) for text in ("Счёт  за МАРТ", "счет за март"))
    assert left.buckets.tolist() == right.buckets.tolist()


def test_labelled_rows_can_be_taken_apart():
    whole = Labelled(["a", "b", "c"], np.array([0, 1, -1]), None, np.array([True, False, True]))
    part = whole.take(np.array([2, 0]))
    assert (part.texts, part.labels.tolist(), part.known.tolist()) == (["c", "a"], [-1, 0], [True, True])
