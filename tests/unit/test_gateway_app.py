"""The application without sockets: door, errors, headers, REST surface, threads, accounts, audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import Quote, Usage
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_chat_model import ScriptedAnswer
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import PASSWORD, Bed, client_of, open_bed

TURN = {"model": "default", "messages": [{"role": "user", "content": "When does it end?"}]}
FILE = {"file": ("contract.txt", b"The contract ends in May.")}


def audit_lines(home: Path) -> list[dict[str, object]]:
    lines = [
        line for path in sorted((home / "audit").glob("*")) if path.is_file() for line in path.read_bytes().splitlines() if line.startswith(b"{")
    ]
    return [record for line in lines if "action" in (record := json.loads(line))]


async def upload(bed: Bed, space: str = "legal") -> str:
    async with client_of(bed) as client:
        answer = await client.post("/api/documents", params={"space": space}, files=FILE)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["data"][0]["document"]["id"])


async def test_a_grounded_answer_cites_and_its_invented_citation_is_gone(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        await upload(bed)
        bed.model.answer = ScriptedAnswer(batches=(("In ", "May", " [1]", " [7]", "."),))
        answer = (await client.post("/v1/chat/completions", json=TURN)).json()
        message = answer["choices"][0]["message"]
        assert message["content"] == "In May [1]."
        (citation,) = message["annotations"]
        assert citation["index"] == 1
        assert citation["file_citation"]["quote"] == "The contract ends in May."
        assert answer["usage"]["total_tokens"] == 9
        assert answer["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_keeps_token_boundaries_and_puts_citations_before_the_end(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        await upload(bed)
        bed.model.answer = ScriptedAnswer(batches=(("In", " M", "ay [1]"), (" now", ".")))
        answer = await client.post("/v1/chat/completions", json=TURN | {"stream": True, "stream_options": {"include_usage": True}})
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
        assert [delta["content"] for delta in deltas if delta.get("content")] == ["In", " M", "ay [1]", " now", "."]
        assert deltas[-2]["annotations"][0]["filename"] == "contract.txt"
        assert events[-1]["usage"]["completion_tokens"] == 2
        assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_fails_first_is_an_ordinary_error(tmp_path: Path, stream: bool) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        bed.model.answer = ScriptedAnswer(fail_first="upstream_timeout")
        answer = await client.post("/v1/chat/completions", json=TURN | {"stream": stream})
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"


async def test_a_model_that_fails_midway_ends_the_stream_with_an_error_event(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        bed.model.answer = ScriptedAnswer(fail_midway="upstream_failed")
        answer = await client.post("/v1/chat/completions", json=TURN | {"stream": True})
        assert answer.status_code == 200
        assert '"code":"upstream_failed"' in answer.text.split("\n\n")[-2]
        assert "[DONE]" not in answer.text


class BrokenRouter:
    """A defect."""

    async def chat(self, *_: object):
        raise ZeroDivisionError("secret detail")
        yield


async def test_a_defect_is_a_500_that_leaks_nothing(tmp_path: Path) -> None:
    async with open_bed(tmp_path, router=BrokenRouter()) as bed, client_of(bed) as client:
        answer = await client.post("/v1/chat/completions", json=TURN)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal"
        assert "secret" not in answer.text
        assert "ZeroDivision" not in answer.text


class BrokenDirectory:
    """A defect behind FastAPI."""

    async def spaces(self, *_: object) -> object:
        raise KeyError("secret detail")


async def test_a_defect_behind_the_framework_is_the_same_500(tmp_path: Path) -> None:
    async with open_bed(tmp_path, directory=BrokenDirectory()) as bed, client_of(bed) as client:
        answer = await client.get("/api/spaces")
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal"
        assert "secret" not in answer.text


async def test_every_closed_path_wants_credentials(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, "") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        closed = [(method, path) for path, operations in paths.items() for method, operation in operations.items() if operation.get("security") != []]
        assert len(closed) > 25
        for method, path in closed:
            answer = await client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
        for bearer in ("Bearer nonsense", "Basic abc", "Bearer ", "Bearer sk-" + "x" * 40, "Bearer " + "y" * 9000):
            assert (await client.get("/api/me", headers={"authorization": bearer})).status_code == 401


async def test_open_addresses_need_nothing_and_call_no_model(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, "") as client:
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json", "/"):
            assert (await client.get(path)).status_code == 200, path
        bed.readiness.ok = False
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == {"ok": False, "detail": "gone", "seconds": 0.001}
        assert (await client.get("/healthz")).status_code == 200
        assert bed.model.requests == []


async def test_headers_guard_every_answer(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        for path in ("/", "/healthz", "/api/me", "/api/nothing", "/v1/models"):
            headers = (await client.get(path, headers={"x-request-id": "my-id.1"})).headers
            assert headers["x-request-id"] == "my-id.1"
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
        for bad in ("a b", "x" * 65, "<script>", "-"):
            assert (await client.get("/healthz", headers={"x-request-id": bad})).headers["x-request-id"] != bad
        page = await client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await client.get("/", headers={"if-none-match": page.headers["etag"]})).status_code == 304


async def test_a_foreign_space_and_an_absent_one_look_alike(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.stranger_key) as client:
        document = await upload(bed)
        for foreign, absent in (("legal", "nowhere"),):
            for method, path, body in (
                ("GET", "/api/documents?space={}", None),
                ("GET", "/api/spaces/{}/members", None),
                ("DELETE", "/api/spaces/{}", None),
                ("POST", "/api/search", {"query": "x", "spaces": ["{}"]}),
                ("POST", "/v1/chat/completions", TURN | {"spaces": ["{}"]}),
                ("POST", "/api/threads", {"spaces": ["{}"]}),
            ):
                answers = []
                for space in (foreign, absent):
                    content = None if body is None else json.dumps(body).replace('"{}"', f'"{space}"')
                    answer = await client.request(method, path.format(space), content=content, headers={"content-type": "application/json"})
                    answers.append((answer.status_code, answer.text.replace(space, "")))
                assert answers[0] == answers[1]
                assert answers[0][0] == 404, (path, answers)
        for path in (
            f"/api/documents/{document}",
            f"/api/documents/{document}/text",
            f"/api/documents/{document}/original",
            f"/v1/files/{document}",
            f"/api/documents/{document}/events",
        ):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/api/documents?space=legal", files=FILE)).status_code == 404


async def test_readers_do_not_write(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        document = await upload(bed)
        assert (await client.post("/api/documents?space=legal", files=FILE)).status_code == 403
        assert (await client.delete(f"/api/documents/{document}")).status_code == 403
        assert (await client.post("/api/spaces", json={"name": "new"})).status_code == 403
        assert (await client.put("/api/spaces/legal/members/user:sam", json={"role": "reader"})).status_code in (403, 404)


async def test_a_rate_limit_tells_when_to_come_back(tmp_path: Path) -> None:
    async with open_bed(tmp_path, GatewaySettings(chat_rate_factor=0.00002)) as bed, client_of(bed, bed.reader_key) as client:
        first, second, third = [await client.post("/v1/chat/completions", json=TURN) for _ in range(3)]
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert int(third.headers["retry-after"]) >= 1
        assert third.json()["error"]["type"] == "rate_limit_error"
        assert (await client.get("/api/me")).status_code == 200


async def test_the_box_sheds_load(tmp_path: Path) -> None:
    async with open_bed(tmp_path, GatewaySettings(max_uploads_at_once=1)) as bed, client_of(bed) as client:

        async def trickle():
            yield b"--B\r\n"
            answer = await client.post("/api/documents", files=FILE)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            yield b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--B--\r\n'

        answer = await client.post("/api/documents", content=trickle(), headers={"content-type": "multipart/form-data; boundary=B"})
        assert answer.status_code == 202, answer.text


async def test_decisions_are_on_record_before_the_answer(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        await client.post("/v1/chat/completions", json=TURN, headers={"x-request-id": "trace-allow"})
        await client.post("/v1/chat/completions", json=TURN | {"spaces": ["hidden"]}, headers={"x-request-id": "trace-deny"})
        await client.get("/api/threads/none", headers={"x-request-id": "trace-thread"})
        found = {str(record["trace_id"]): record for record in audit_lines(tmp_path)}
        assert (found["trace-allow"]["outcome"], found["trace-allow"]["action"]) == ("allow", "chat.complete")
        assert found["trace-deny"]["outcome"] == "deny"
        assert (found["trace-thread"]["outcome"], found["trace-thread"]["action"]) == ("deny", "GET /api/threads/{thread_id}")


class FullAudit:
    """A log that cannot keep anything."""

    def append_nowait(self, **_: object) -> object:
        raise ApplianceError("disk_full", "the audit log has no space")


async def test_without_a_record_there_is_no_answer(tmp_path: Path) -> None:
    async with open_bed(tmp_path, audit=FullAudit()) as bed, client_of(bed) as client:
        for answer in (await client.post("/v1/chat/completions", json=TURN), await client.get("/api/me"), await client.get("/api/threads/none")):
            assert answer.status_code == 507, answer.text
            assert answer.json()["error"]["code"] == "disk_full"


async def test_threads_survive_a_restart_and_belong_to_their_maker(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        await upload(bed)
        bed.model.answer = ScriptedAnswer(batches=(("In May [1].",),), quotes=(Quote(1, 1, 0, 12),))
        thread = (await client.post("/v1/chat/completions", json=TURN | {"thread_id": "new"})).json()["thread_id"]
        await client.post("/v1/chat/completions", json=TURN | {"thread_id": thread, "stream": True})
        assert (await client.patch(f"/api/threads/{thread}", json={"title": "Срок"})).json()["title"] == "Срок"
    async with open_bed(tmp_path) as bed, client_of(bed) as client, client_of(bed, bed.reader_key) as other:
        kept = (await client.get(f"/api/threads/{thread}")).json()
        assert [message["role"] for message in kept["messages"]] == ["user", "assistant"] * 2
        assert kept["messages"][1]["citations"][0]["quote"] == "The contract"
        assert [row["id"] for row in (await client.get("/api/threads")).json()["data"]] == [thread]
        for answer in (
            await other.get(f"/api/threads/{thread}"),
            await other.patch(f"/api/threads/{thread}", json={"title": "x"}),
            await other.delete(f"/api/threads/{thread}"),
            await other.post("/v1/chat/completions", json=TURN | {"thread_id": thread}),
        ):
            assert answer.status_code == 404
        assert (await other.get("/api/threads")).json() == {"data": []}
        assert (await client.delete(f"/api/threads/{thread}")).status_code == 204
        assert (await client.get(f"/api/threads/{thread}")).status_code == 404


async def test_token_accounts_add_up(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client:
        bed.model.answer = ScriptedAnswer(usage=Usage(100, 20))
        for stream in (True, False):
            await client.post("/v1/chat/completions", json=TURN | {"stream": stream})
        (today,) = (await client.get("/api/usage")).json()["data"]
        assert (today["requests"], today["prompt_tokens"], today["completion_tokens"]) == (2, 200, 40)


async def test_sign_in_refresh_and_sign_out(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, "") as client:
        tokens = (await client.post("/api/auth/login", json={"username": "rita", "password": PASSWORD})).json()
        me = await client.get("/api/me", headers={"authorization": f"Bearer {tokens['access_token']}"})
        assert me.json() == {"subject": "user:rita", "kind": "user", "roles": ["member"], "spaces": {"default": "editor", "legal": "reader"}}
        again = await client.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.status_code == 200
        assert (await client.post("/api/auth/logout", json={"refresh_token": again.json()["refresh_token"]})).status_code == 204
        assert (await client.post("/api/auth/refresh", json={"refresh_token": again.json()["refresh_token"]})).status_code == 401
        wrong = await client.post("/api/auth/login", json={"username": "rita", "password": "wrong"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "unauthenticated")


async def test_too_many_failed_logins_tell_when_to_come_back(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, "") as client:
        answers = [await client.post("/api/auth/login", json={"username": "rita", "password": f"wrong {number}"}) for number in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_spaces_and_members(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        assert (await client.post("/api/spaces", json={"name": "hr", "title": "Кадры"})).status_code == 201
        assert (await client.post("/api/spaces", json={"name": "hr"})).status_code == 409
        assert (await client.put("/api/spaces/hr/members/user:sam", json={"role": "reader"})).status_code == 204
        assert (await client.get("/api/spaces/hr/members")).json()["data"] == [{"subject": "user:sam", "role": "reader"}]
        await upload(bed, "hr")
        assert {space["name"]: space["documents"] for space in (await client.get("/api/spaces")).json()["data"]} == {
            "default": 0,
            "hr": 1,
            "legal": 0,
        }
        assert (await client.delete("/api/spaces/hr")).status_code == 409
        assert (await client.delete("/api/spaces/hr?force=true")).status_code == 204
        assert (await client.get("/api/spaces/hr/members")).status_code == 404


async def test_documents_through_their_life(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        files = [("file", ("a.txt", b"one two")), ("file", ("b.exe", b"MZ")), ("file", ("c.txt", b""))]
        data = (await client.post("/api/documents", files=files)).json()["data"]
        assert [(row["outcome"], row["error"] and row["error"]["code"]) for row in data] == [
            ("created", None),
            ("refused", "unsupported_type"),
            ("refused", "document_empty"),
        ]
        document = data[0]["document"]["id"]
        assert (await client.post("/api/documents", files=files[:1])).json()["data"][0]["outcome"] == "unchanged"
        text = (await client.get(f"/api/documents/{document}/text?start=4")).json()
        assert (text["text"], text["start"], text["end"], text["length"]) == ("two", 4, 7, 7)
        original = await client.get(f"/api/documents/{document}/original")
        assert original.content == b"one two"
        assert original.headers["content-disposition"].startswith("attachment")
        events = await client.get(f"/api/documents/{document}/events")
        assert events.text.count("event: progress") == 2
        assert (await client.post("/api/search", json={"query": "two"})).json()["data"][0]["document_id"] == document
        assert (await client.delete(f"/api/documents/{document}")).status_code == 204
        assert (await client.get(f"/api/documents/{document}")).status_code == 404
        assert (await client.post("/api/documents", files=files[1:2])).status_code == 415


async def test_the_openapi_document_is_complete(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, "") as client:
        document = (await client.get("/openapi.json")).json()
        assert {"/v1/chat/completions", "/healthz", "/readyz", "/metrics", "/api/search", "/v1/rerank"} <= set(document["paths"])
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert all(operation.get("summary") and "default" in operation["responses"] for operation in operations)
        assert document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert "422" not in json.dumps(document["paths"])
        references = {reference for reference in json.dumps(document).split('"') if reference.startswith("#/components/schemas/")}
        assert {reference.rsplit("/", 1)[1] for reference in references} <= set(document["components"]["schemas"])


async def test_metrics_have_templates_and_no_raw_paths(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        await client.get("/api/threads/very-secret-id")
        await client.get("/api/absent/very-secret-path")
        text = (await client.get("/metrics")).text
        assert 'route="/api/threads/{thread_id}"' in text
        assert "very-secret" not in text
