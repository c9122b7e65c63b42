"""The report: its verdict follows from its records, and nobody without the key can change either."""

from __future__ import annotations

import base64
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.bundle.format import canonical_json
from appliance.kit.errors import ApplianceError
from appliance.proof.canary import RESOLVER_ADDRESS
from appliance.proof.counters import Counters
from appliance.proof.driver import cited_files, run_phase
from appliance.proof.envelope import check_traces, load_or_create_key, read_report, sign_report, trace_facts, write_report
from appliance.proof.journey import Digests, Goods, make_plan
from appliance.proof.plan import Phase, Plan
from appliance.proof.report import make_report, with_starts
from appliance.proof.tools import PACKAGES
from tests.unit.proof_samples import FOLDER, INNER, KEY_SEED, OUTER, TRIED, attempts, canary_attempts, mode_entry, report, result

KEY = Ed25519PrivateKey.from_private_bytes(KEY_SEED)


def refusal(path: Path, key: Ed25519PrivateKey = KEY) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        read_report(path, key.public_key())
    assert caught.value.hint
    return caught.value


def test_three_quiet_networks_are_a_proof() -> None:
    made = report()
    assert (made["attempts"], made["verdict"]) == (0, "sealed")
    assert made["starts"]["as_fast"]


def test_one_attempt_in_one_network_is_egress_and_is_listed() -> None:
    made = report(mode_entry("no-route"), mode_entry("refuse", *attempts(OUTER["tcp"])), mode_entry("drop"))
    assert (made["attempts"], made["verdict"]) == (1, "egress")
    assert made["modes"][1]["attempts"][0]["address"] == "192.0.2.1"


def test_packets_that_no_call_explains_are_egress_too() -> None:
    assert report(mode_entry("drop", journey=1))["verdict"] == "egress"


def test_a_box_that_calls_itself_canary_is_not_taken_for_it() -> None:
    early = [attempt for attempt in canary_attempts() if attempt.port == 443]
    impostor = [type(early[0])(**{**{name: getattr(early[0], name) for name in early[0].__slots__}, "time_micros": 1_999_999})]
    assert report(mode_entry("drop", *impostor))["verdict"] == "egress"
    assert report(mode_entry("drop", *canary_attempts(pid=91)))["attempts"] == len(TRIED)


@pytest.mark.parametrize("change", ["missed", "extra", "io_uring", "untraced", "counters", "nothing tried"])
def test_a_failed_control_makes_the_proof_invalid(change: str) -> None:
    done = result("drop")
    seen = canary_attempts()
    if change == "missed":
        seen.pop()
    elif change == "extra":
        done["canary"]["tried"] = TRIED[:-1]
    elif change == "io_uring":
        done["canary"]["io_uring_denied"] = False
    elif change == "untraced":
        done["canary"]["untraced_denied"] = False
    elif change == "counters":
        done["counters"]["control"] = done["counters"]["journey"]
    else:
        done["canary"], seen = {}, []
    from appliance.proof.report import mode_document

    entry = mode_document("drop", done, seen, {"sha256": "0" * 64, "size_bytes": 1, "folder": FOLDER})
    assert not entry["control"]["holds"]
    assert report(mode_entry("no-route"), mode_entry("refuse"), entry)["verdict"] == "invalid"


def test_a_phase_that_failed_a_slow_start_and_a_missing_network_are_told_apart() -> None:
    assert report(mode_entry("no-route"), mode_entry("refuse"), mode_entry("drop", failed="rollback"))["verdict"] == "failed"
    slow = report(mode_entry("no-route"), mode_entry("refuse"), mode_entry("drop", starts=(6000, 6100, 6050)))
    assert (slow["verdict"], slow["starts"]["percent_of_no_route"]["drop"]) == ("failed", 605)
    assert report(mode_entry("no-route"))["verdict"] == "partial"


def test_a_signed_report_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    write_report(path, b"older")
    write_report(path, sign_report(report(), KEY))
    assert read_report(path, KEY.public_key()) == report()
    assert [entry.name for entry in tmp_path.iterdir()] == ["proof.json"]


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    first = load_or_create_key(tmp_path / "keys")
    assert load_or_create_key(tmp_path / "keys").private_bytes_raw() == first.private_bytes_raw()
    assert (tmp_path / "keys" / "proof.key.pem").stat().st_mode & 0o777 == 0o600


def test_every_flipped_byte_of_the_file_is_noticed(tmp_path: Path) -> None:
    data = sign_report(report(mode_entry("drop")), KEY)
    path = tmp_path / "proof.json"
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert refusal(path).code == "proof_invalid"


def test_another_key_or_no_signature_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    path.write_bytes(sign_report(report(), KEY))
    assert refusal(path, Ed25519PrivateKey.generate()).code == "proof_invalid"
    document = json.loads(path.read_bytes())
    path.write_bytes(canonical_json.encode({**document, "signatures": []}))
    assert refusal(path).code == "proof_invalid"
    path.write_bytes(canonical_json.encode({**document, "payload": base64.b64encode(b"{}\n").decode()}))
    assert refusal(path).code == "proof_invalid"
    assert refusal(tmp_path / "absent").code == "not_found"


def changed(change: Any) -> dict[str, Any]:
    made: dict[str, Any] = report(mode_entry("no-route"), mode_entry("refuse", *attempts(OUTER["tcp"])), mode_entry("drop"))
    change(made)
    return made


@pytest.mark.parametrize(
    "lie",
    [
        lambda made: made.update(attempts=0),
        lambda made: made.update(verdict="sealed"),
        lambda made: made["starts"].update(as_fast=False),
        lambda made: made["modes"][0]["control"].update(holds=False),
        lambda made: made["modes"][0]["control"]["tried"].pop(),
        lambda made: made["modes"][1]["attempts"].clear(),
        lambda made: made["modes"].pop(),
        lambda made: made["modes"].append(made["modes"][0]),
        lambda made: made["modes"][0].pop("trace"),
        lambda made: made["modes"][0].update(mode="open"),
        lambda made: made["modes"][0]["counters"]["journey"].update(leaving_packets=-1),
        lambda made: made["modes"][0]["starts_milliseconds"].append("1"),
        lambda made: made["modes"][1]["attempts"][0].update(port="443"),
        lambda made: made["bundles"]["install"].update(manifest_sha256="x"),
        lambda made: made.update(more=1),
        lambda made: made.update(schema_version=2),
    ],
)
def test_a_report_that_contradicts_itself_is_refused_although_it_is_signed(tmp_path: Path, lie: Any) -> None:
    path = tmp_path / "proof.json"
    path.write_bytes(sign_report(changed(lie), KEY))
    assert refusal(path).code == "proof_invalid"


def test_the_raw_traces_are_counted_again(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    trace = folder / "trace.strace"
    trace.write_text("\n".join([*INNER, OUTER["tcp"]]) + "\n")
    from appliance.proof.report import mode_document

    facts = {**trace_facts(trace), "folder": FOLDER}
    done = {**result("drop"), "canary": {}}
    honest = mode_document("drop", done, attempts(*INNER, OUTER["tcp"]), facts)
    check_traces(report(honest), tmp_path)
    with pytest.raises(ApplianceError, match="differs"):  # as many, but another
        check_traces(report(mode_document("drop", done, attempts(OUTER["udp"]), facts)), tmp_path)
    with pytest.raises(ApplianceError, match="control catch"):
        check_traces(report(mode_document("drop", result("drop"), [*attempts(OUTER["tcp"]), *canary_attempts()], facts)), tmp_path)
    with pytest.raises(ApplianceError, match="lists 0"):
        check_traces(report(mode_document("drop", result("drop"), [], facts)), tmp_path)
    trace.write_text("\n".join(INNER) + "\n")
    with pytest.raises(ApplianceError, match="not the trace"):
        check_traces(report(honest), tmp_path)


@pytest.mark.parametrize(("content", "ok"), [(b"{}\n", True), (b"{ }\n", False), (None, False)])
def test_a_phase_fails_when_another_release_is_in_use_than_the_report_says(tmp_path: Path, content: bytes | None, ok: bool) -> None:
    manifest = tmp_path / "manifest.json"
    if content is not None:
        manifest.write_bytes(content)
    phase = Phase("install", (sys.executable, "-c", ""), wants_manifest=sha256(b"{}\n").hexdigest(), manifest=str(manifest))
    done = run_phase(phase, Plan("drop", str(tmp_path), (phase,)))
    assert done.ok is ok
    assert ("release in use" in done.detail) is not ok


def test_what_a_phase_said_commands_no_terminal(tmp_path: Path) -> None:
    phase = Phase("smoke", (sys.executable, "-c", "import sys; sys.exit('one\\ntwo\\x1b[2J\\x9b3m')"))
    assert run_phase(phase, Plan("drop", str(tmp_path), (phase,))).detail == "exit status 1: one\ntwo?[2J?3m"


def test_install_upgrade_and_rollback_are_bound_to_the_bundles_of_the_report(tmp_path: Path) -> None:
    made = make_plan("drop", tmp_path, Goods(tmp_path / "a", tmp_path / "b", "sha256:0"), Digests("first", "second"))
    assert [(phase.name, phase.wants_manifest) for phase in made.phases if phase.wants_manifest] == [
        ("install", "first"), ("upgrade", "second"), ("rollback", "first"),
    ]  # fmt: skip


def test_what_the_guard_refused_during_the_measured_starts_is_egress(tmp_path: Path) -> None:
    (late,) = refusals_in(tmp_path)
    assert report(with_starts(mode_entry("drop"), (1000, 1010, 990), Counters(), [late]))["verdict"] == "egress"


def refusals_in(folder: Path) -> list[Any]:
    from appliance.proof.refusals import refused_attempts

    (folder / "box.jsonl").write_text('{"event":"egress_refused","destination":"late.example:443","at":"2026-11-21T12:00:00.000+00:00"}\n')
    return refused_attempts(folder)


def test_only_a_citation_of_the_document_counts_as_one() -> None:
    note = {"type": "file_citation", "filename": "own.txt"}
    assert cited_files(json.dumps({"choices": [{"message": {"annotations": [note]}}]}).encode()) == {"own.txt"}
    for answer in (b"", b"own.txt", b'{"choices":[{"message":{"annotations":null}}]}', b'{"choices":[{"message":{"content":"own.txt"}}]}'):
        assert cited_files(answer) == set()


def test_the_report_function_takes_no_modes_for_no_proof() -> None:
    empty = make_report([], tool={}, bundles={}, host={}, made_at="", seconds=0)
    assert empty["verdict"] == "invalid"


def test_missing_tools_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.proof import tools

    monkeypatch.setattr(tools, "SEARCH_PATH", "/nowhere")
    with pytest.raises(ApplianceError) as caught:
        tools.find_tools()
    assert caught.value.code == "unavailable"
    assert all(package in caught.value.hint for package in set(PACKAGES.values()))
    assert RESOLVER_ADDRESS


def test_what_the_guard_of_the_box_refused_is_an_attempt_too(tmp_path: Path) -> None:
    from appliance.proof.refusals import refused_attempts

    line = '{"event":"egress_refused","total":1,"call":"socket.connect","destination":"telemetry.example:443","at":"2026-11-21T12:00:00.000+00:00"}\n'
    (tmp_path / "box.jsonl").write_text('{"event":"box_ready"}\n' + line + line)
    (found,) = refused_attempts(tmp_path)
    assert (found.address, found.family, found.time_micros) == ("telemetry.example:443", "refused", 1795262400000000)
    assert report(mode_entry("drop", found))["verdict"] == "egress"
    (tmp_path / "box.jsonl").write_text('{"event":"egress_refused", broken\n')
    with pytest.raises(Exception, match="not readable"):
        refused_attempts(tmp_path)
