"""What a site writes down is what happened: copies belong to one change, a rollback that did not happen is not confirmed, and the clock is nobody else's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.bundle.format.manifest import BundleFile, Component, Manifest, Target
from appliance.bundle.format.trust_root import chain_bytes
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.bundle.site import home_copy, operations, records
from appliance.bundle.site.confirm import confirm, write_tools
from appliance.bundle.site.durable import put_link
from appliance.bundle.site.health import HealthCheck
from appliance.bundle.site.history import Event, History, append, read_history
from appliance.bundle.site.layout import Generation, Site, open_site
from appliance.bundle.site.process_service import start_ticks
from appliance.bundle.site.settle import settle
from appliance.bundle.verify import Policy
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import NOW, SmallBundle, small_trust
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import site_bed, until

ISSUED = datetime(2026, 1, 1, tzinfo=UTC)


def rows(home: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(home / "box.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def two_generations(folder: Path, service: str = "none", issued_at: datetime = ISSUED) -> tuple[Site, Path, Generation, Generation]:
    """A site that runs release 2 and had release 1 before; no box."""
    site, home = open_site(folder / "site", create=True), folder / "home"
    (home / "run").mkdir(parents=True)
    found = []
    for sequence in (1, 2):
        empty = BundleFile("app/docs/a", "0644", 0, sha256().hexdigest(), ())
        component = Component("docs", "docs", "1", (empty,))
        manifest = Manifest("x", f"0.{sequence}", sequence, issued_at, issued_at.replace(year=issued_at.year + 4), Target("linux", "x86_64", "3.11"), (component,))
        generation = site.generation(manifest.generation)
        (generation.path / "app/docs").mkdir(parents=True)
        (generation.path / "app/docs/a").touch()
        (generation.path / "manifest.json").write_bytes(manifest.to_bytes())
        (generation.path / "complete.json").write_text("{}")
        found.append((generation, manifest))
    (old, _), (new, newer) = found
    put_link(site.current_link, f"generations/{new.name}")
    records.write_settings(site, records.Settings(str(home), service=service))
    records.write_state(site, records.State("x", 2, newer.digest, new.name, old.name))
    return site, home, old, new


def test_a_second_upgrade_to_the_same_release_copies_the_data_of_today(tmp_path: Path) -> None:
    rows(tmp_path, "CREATE TABLE t (x)")
    rows(tmp_path, "INSERT INTO t VALUES ('day 1')")
    assert home_copy.copy_before(tmp_path, "2-b", "first") > 0
    assert home_copy.copy_before(tmp_path, "2-b", "first") == 0, "a repeated step of one change keeps its copy"
    rows(tmp_path, "INSERT INTO t VALUES ('weeks of work')")
    assert home_copy.copy_before(tmp_path, "2-b", "second") > 0
    home_copy.restore(tmp_path, "2-b", "second")
    assert rows(tmp_path, "SELECT x FROM t") == [("day 1",), ("weeks of work",)]


def test_a_stray_or_damaged_database_does_not_stop_the_way_back(tmp_path: Path) -> None:
    rows(tmp_path, "CREATE TABLE t (x)")
    home_copy.copy_before(tmp_path, "2-b", "op")
    (tmp_path / "notes.db").write_text("these are my notes, no database")
    assert home_copy.schema_versions(tmp_path) == {}
    damaged = b"SQLite format 3\0" + b"\xff" * 5000
    (tmp_path / "box.db").write_bytes(damaged)
    home_copy.restore(tmp_path, "2-b", "op")
    assert rows(tmp_path, "SELECT * FROM t") == []
    assert (tmp_path / "upgrade-copies/2-b/set-aside/op/box.db").read_bytes() == damaged
    assert (tmp_path / "notes.db").exists()


def test_the_way_back_takes_the_event_log_and_the_knowledge_along(tmp_path: Path) -> None:
    """A newer release may have written events that the older one does not know; what is there now is kept aside."""
    rows(tmp_path, "CREATE TABLE t (x)")
    block, knowledge = tmp_path / "nats/store/jetstream/BOX/streams/TASKS/msgs/1.blk", tmp_path / "knowledge/knowledge.db"
    for path in (block, knowledge):
        path.parent.mkdir(parents=True)
    block.write_bytes(b"old events")
    with closing(sqlite3.connect(knowledge)) as connection, connection:
        connection.execute("CREATE TABLE entries (x)")
    (tmp_path / "nats/secrets.json").write_text("{}")
    home_copy.copy_before(tmp_path, "2-b", "op")
    block.write_bytes(b"old events and new ones")
    with closing(sqlite3.connect(knowledge)) as connection, connection:
        connection.execute("INSERT INTO entries VALUES (1)")

    for _ in range(2):  # a killed run does it again
        home_copy.restore(tmp_path, "2-b", "op")

        assert block.read_bytes() == b"old events"
        with closing(sqlite3.connect(knowledge)) as connection:
            assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    aside = tmp_path / "upgrade-copies/2-b/set-aside/op"
    assert (aside / block.relative_to(tmp_path)).read_bytes() == b"old events and new ones"
    assert (aside / "knowledge/knowledge.db").is_file()


@pytest.mark.parametrize("service", ["none", "systemd:no-such-appliance"])
def test_a_rollback_that_did_not_happen_is_not_written_down(tmp_path: Path, service: str) -> None:
    site, home, _old, new = two_generations(tmp_path, service)
    if service == "none":  # a box runs on the home: files only cannot be switched under it
        import json
        import os

        (home / "run" / "box.json").write_text(json.dumps({"pid": os.getpid(), "started_ticks": start_ticks(os.getpid())}))
    with pytest.raises(ApplianceError) as refused:
        operations.rollback(site.path, start=service != "none", check=HealthCheck(1))
    assert refused.value.code in {"install_failed", "site_busy"}
    assert refused.value.hint
    assert site.current() == new
    assert records.read_state(site).generation == new.name
    assert records.read_pending(site) is None
    assert read_history(site, records.read_state(site)).count == 0


def test_a_kill_at_the_last_step_of_confirming_does_not_take_a_confirmed_release_back(tmp_path: Path) -> None:
    site, _home, old, new = two_generations(tmp_path)
    bundle = small_trust()
    (new.path / "root-chain.json").write_bytes(chain_bytes(bundle.chain))
    records.write_pending(site, records.Pending("op", "upgrade", old.name, new.name, attempts=1))

    class KilledError(Exception):
        pass

    def die(step: str) -> None:
        if step == "confirm: end":
            raise KilledError

    with pytest.raises(KilledError):
        confirm(site, {}, observe=die)
    assert records.read_pending(site) is not None
    assert settle(site) == new
    assert records.read_pending(site) is None


def test_a_long_reason_is_cut_and_the_history_stays_readable(tmp_path: Path) -> None:
    site, _home, old, new = two_generations(tmp_path)
    (new.path / "root-chain.json").write_bytes(chain_bytes(small_trust().chain))
    records.write_pending(site, records.Pending("op", "upgrade", old.name, new.name, reason="why " * 50_000, overrides=["older"]))
    confirm(site, {"health": "x" * 100_000})
    assert read_history(site, records.read_state(site)).count == 2


def test_the_time_in_a_bundle_is_never_taken_for_the_time(tmp_path: Path) -> None:
    site, _home, old, new = two_generations(tmp_path, issued_at=datetime(2099, 1, 1, tzinfo=UTC))
    (new.path / "root-chain.json").write_bytes(chain_bytes(small_trust().chain))
    records.write_pending(site, records.Pending("op", "upgrade", old.name, new.name))
    confirm(site, {})
    assert records.now_seen(records.read_state(site)) < datetime.now(UTC) + timedelta(minutes=1)


def test_a_bundle_from_the_future_is_refused_unless_the_operator_says_so(tmp_path: Path) -> None:
    bundle = SmallBundle(files={"app/docs/a.md": b"a"}, issued_at=NOW + timedelta(days=2), expires_at=NOW + timedelta(days=90))
    path = tmp_path / "x.bundle"
    bundle.write(path)
    with open_bundle(path) as file:
        with pytest.raises(ApplianceError, match="from the future"):
            verify_bundle(file, bundle.trust.pin, Policy(NOW))
        assert len(verify_bundle(file, bundle.trust.pin, Policy(NOW, allow_expired=True)).overrides) == 1
        assert verify_bundle(file, bundle.trust.pin, Policy(NOW + timedelta(days=1))).overrides == ()


def test_a_copy_from_before_an_earlier_use_of_a_release_is_not_put_back(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        bed.upgrade(FakeRelease(2, "0002"))
        bed.rollback()
        bed.write("weeks of work")
        bed.rollback(FakeRelease(2, "0002").generation)  # forward again, without a copy
        with pytest.raises(ApplianceError, match="no copy of the data") as refused:
            bed.rollback(restore_data=True)
        assert refused.value.code == "not_found"
        until(lambda: bed.serving() == 2, "the release that ran runs on")
        assert bed.notes() == ["weeks of work"]


def test_a_home_that_cannot_be_read_does_not_keep_the_box_down(tmp_path: Path) -> None:
    site, home, old, new = two_generations(tmp_path)
    for generation, head in ((old, "1"), (new, "2")):
        (generation.path / "meta").mkdir()
        (generation.path / "meta/release.json").write_text(f'{{"schema_heads":{{"x":"{head}"}}}}\n')
    write_tools(site)
    (home / "box.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    (home / "notes.db").write_text("these are my notes, no database")
    records.write_pending(site, records.Pending("op", "upgrade", old.name, new.name))
    assert settle(site) == old
    pending = records.read_pending(site)
    assert pending is not None
    assert pending.applied
    assert "was not started" in pending.data


def test_an_upgrade_of_files_under_a_box_that_runs_leaves_no_change_under_way(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        with pytest.raises(ApplianceError, match="a box runs on the home"):
            bed.upgrade(FakeRelease(2), start=False)
        assert records.read_pending(bed.site) is None
        assert bed.verbs() == ["install"]
        assert bed.serving() == 1
        bed.upgrade(FakeRelease(2))
        assert bed.serving() == 2


def test_what_could_not_be_read_again_is_not_written_into_the_history(tmp_path: Path) -> None:
    site = open_site(tmp_path / "site", create=True)
    with pytest.raises(ApplianceError):
        append(site, History(), [Event("2026-01-01T00:00:00Z", "install", "", "1-0123456789ab", "x", {"operation": "o", "reason": "x" * 70_000})])
    assert not site.history_file.exists()
    widest = "\0" * records.MAX_REASON_CHARACTERS
    facts = {"operation": "o", "reason": widest, "data": widest, "health": widest}
    append(site, History(), [Event("2026-01-01T00:00:00Z", "install", "", "1-0123456789ab", widest, facts)])
    assert read_history(site, records.State()).count == 1


@pytest.mark.parametrize("reason", ["\udcff bytes that are no text", "\x1b]0;owned\x07"])
def test_a_reason_that_is_no_text_is_written_as_one(tmp_path: Path, reason: str) -> None:
    site, _home, old, new = two_generations(tmp_path)
    records.write_pending(site, records.Pending("op", "rollback", new.name, old.name, reason=reason))
    pending = records.read_pending(site)
    assert pending is not None
    assert pending.reason.isprintable()
