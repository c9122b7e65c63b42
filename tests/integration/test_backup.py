"""A node is lost: what was acknowledged before the backup is there again, and nothing else is believed than what the box signed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from appliance.audit.log import AuditLog
from appliance.audit.signing import load_or_create_key, load_public_key
from appliance.audit.verify import verify_log
from appliance.backup.archive import writing_archive
from appliance.backup.index import INDEX, MIN_PART_BYTES, Facts, Index, read_index, sign_index
from appliance.backup.restore import restore_backup
from appliance.backup.take import take_backup
from appliance.bundle.format.container import BLOCK, END, header, padding
from appliance.bundle.site.layout import Site
from appliance.bundle.site.records import Settings, write_settings
from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.testing.box_process import ROOT, box_process
from tests.integration.real_box import load_demo, settled, upload

STRANGER = 65534


def ask(client, question: str, space: str) -> str:
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "spaces": [space]}
    return client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def cli(*arguments: str, home: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *arguments], cwd=ROOT, env={**os.environ, "APPLIANCE_HOME": str(home)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_lost_node_comes_back_from_a_backup_taken_while_it_worked(tmp_path: Path) -> None:
    home, saved = tmp_path / "home", tmp_path / "box.backup"
    with box_process(home) as box, box.client() as client:
        load_demo(client)
        before = ask(client, "When does the supply contract end?", "legal")
        assert "31 March 2027" in before
        order = {"prompt": "supply contract", "template": "report", "output": "docx", "spaces": ["legal"]}
        report = client.post("/api/reports", json=order).raise_for_status().json()["artefact"]
        document = client.get(f"/api/artefacts/{report['id']}/content").raise_for_status().content
        threads = client.get("/api/threads").json()
        late = upload(client, "legal", ("still_being_read.txt", b"The backup is taken while this is on its way. " * 2000))[0]["document"]["id"]
        taken = cli("backup", "-o", str(saved), "--json", home=home)
        assert taken["bytes"] == saved.stat().st_size
        assert saved.stat().st_mode & 0o077 == 0
    (tmp_path / "audit.pub.pem").write_bytes((home / "keys" / "audit.pub.pem").read_bytes())
    shutil.rmtree(home)

    again = tmp_path / "again"
    restored = cli("restore", str(saved), "--home", str(again), "--public-key", str(tmp_path / "audit.pub.pem"), "--json", home=again)
    assert restored["audit_records"] > 20
    with box_process(again) as box, box.client() as client:
        settled(client, late)
        assert ask(client, "When does the supply contract end?", "legal") == before
        assert client.get("/api/threads").json() == threads
        assert client.get(f"/api/artefacts/{report['id']}/content").content == document
        names = {row["name"] for row in client.get("/api/documents", params={"space": "legal"}).json()["data"]}
        assert {"supply_contract.pdf", "still_being_read.txt"} <= names
    assert verify_log(again / "audit", load_public_key(again / "keys" / "audit.pub.pem")).is_whole


def append_one_record(home: Home) -> None:
    async def append() -> None:
        async with await AuditLog.open(home.audit, load_or_create_key(home.keys)) as log:
            await log.append(actor="user:a", action="thing.make", resource="thing:1", outcome="ok")

    asyncio.run(append())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of a home with a key, a file and no box."""
    home = Home(tmp_path / "small")
    home.create()
    append_one_record(home)
    (home.path / "models.toml").write_text("schema_version = 1\n")
    take_backup(home, tmp_path / "small.backup")
    return tmp_path / "small.backup"


WRITTEN = ("models.toml", "router.toml", "agents.toml", "guardrails.toml", "quotas.toml", "tool_approvals.json", "router/examples.jsonl", "templates/letter.template")


def test_what_people_wrote_and_what_was_made_comes_back_and_nothing_half_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "small")
    home.create()
    append_one_record(home)
    made = (f"artefacts/ab/ab{'0' * 62}", *WRITTEN)
    for name in (*made, "artefacts/tmp/half"):
        (home.path / name).parent.mkdir(parents=True, exist_ok=True)
        (home.path / name).write_text(name)
    take_backup(home, tmp_path / "small.backup")
    restored = restore_backup(tmp_path / "small.backup", Home(tmp_path / "again")).home
    assert {name: (restored / name).read_text() for name in made} == {name: name for name in made}
    assert not (restored / "artefacts" / "tmp" / "half").exists()


def refused(archive: Path, where: Path, **more: object) -> str:
    with pytest.raises(ApplianceError) as caught:
        restore_backup(archive, Home(where), **more)  # type: ignore[arg-type]
    assert not where.exists() or not any(where.iterdir()), "nothing may be in place after a refusal"
    assert [path for path in where.parent.iterdir() if "restoring" in path.name] == []
    assert caught.value.hint
    return caught.value.code


def test_every_flipped_byte_of_a_backup_is_found(saved: Path, tmp_path: Path) -> None:
    good = saved.read_bytes()
    for position in [*range(0, len(good), 11), len(good) - 1]:
        bad = bytearray(good)
        bad[position] ^= 0x40
        saved.write_bytes(bad)
        assert refused(saved, tmp_path / "home") in {"bundle_invalid", "bundle_altered", "bundle_unsigned"}, position


def test_a_short_backup_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 100, 512, 2048, len(content) // 2):
        saved.write_bytes(content[:length])
        assert refused(saved, tmp_path / "home") == "bundle_invalid"


def test_a_backup_of_another_box_is_refused_when_its_key_is_known(saved: Path, tmp_path: Path) -> None:
    stranger = load_or_create_key(tmp_path / "other" / "keys").public_key()
    assert refused(saved, tmp_path / "home", public=stranger) == "bundle_unsigned"


def resigned(saved: Path, home: Path, change: Callable[[Index], Index]) -> None:
    """Give ``saved`` another index, signed by the box itself: a box that was taken over."""
    data = saved.read_bytes()
    offset = data.rindex(INDEX.encode())
    body = data[offset + BLOCK :].rstrip(b"\0")
    body = sign_index(change(read_index(body).index), load_or_create_key(home / "keys"))
    saved.write_bytes(data[:offset] + header(INDEX, len(body)) + body + padding(len(body)) + END)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "", "a//b", "models.toml", "keys", "a\0b", "x" * 256])
def test_paths_that_lead_out_or_meet_are_refused_even_when_signed(saved: Path, tmp_path: Path, name: str) -> None:
    def renamed(index: Index) -> Index:
        row = next(row for row in index.files if row.path.startswith("audit/"))
        return replace(index, files=tuple(replace(file, path=name) if file is row else file for file in index.files))

    resigned(saved, tmp_path / "small", renamed)
    assert refused(saved, tmp_path / "home") == "bundle_invalid"
    assert not (tmp_path / "outside").exists()


def test_an_index_that_claims_more_than_the_file_holds_is_refused(saved: Path, tmp_path: Path) -> None:
    def longer(index: Index) -> Index:
        return replace(index, files=(replace(index.files[0], size=1 << 50), *index.files[1:]))

    resigned(saved, tmp_path / "small", longer)
    assert refused(saved, tmp_path / "home") == "bundle_altered"


def test_a_member_after_the_index_is_refused(saved: Path, tmp_path: Path) -> None:
    with tarfile.open(saved, "a", format=tarfile.USTAR_FORMAT) as archive:
        extra = tarfile.TarInfo("extra")
        extra.size = 1
        archive.addfile(extra, io.BytesIO(b"x"))
    with tarfile.open(saved) as archive:
        assert archive.getnames()[-2:] == [INDEX, "extra"]
    assert refused(saved, tmp_path / "home") == "bundle_invalid"


def sparse_member() -> bytes:
    """1.5 KiB that tar would unpack to 300 MiB (GNU sparse 1.0 in a pax header)."""
    out, said = io.BytesIO(), str(300 << 20)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member, body = tarfile.TarInfo("files/00000001"), f"1\n{said}\n0\n".encode().ljust(512, b"\0")
        member.size = len(body)
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "files/00000001", "GNU.sparse.realsize": said}
        archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


def pax_header() -> bytes:
    """The header of an extended header of 400 MiB."""
    member = tarfile.TarInfo("files/00000001")
    member.type, member.size = tarfile.XHDTYPE, 400 << 20
    return member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("make", [sparse_member, pax_header, lambda: header("files/00000001", 400 << 20)])
def test_a_few_bytes_fill_neither_the_disk_nor_the_memory(tmp_path: Path, make: Callable[[], bytes]) -> None:
    evil = tmp_path / "evil.backup"
    with evil.open("wb") as file:
        file.write(make())
        file.truncate(402 << 20)  # a hole
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(evil, tmp_path / "home") == "bundle_invalid"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_names_long_files_and_holes_come_back_as_they_were(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "keys")
    contents = {"keys/audit.pub.pem": (tmp_path / "keys" / "audit.pub.pem").read_bytes(), "empty": b"", "a name, \u00e4 and more/" + "n" * 200: b"x" * 513}
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.truncate(5 * 2**20 + 7)
        file.seek(0, 2)
        file.write(b"end")
    with writing_archive(tmp_path / "b", part_bytes=MIN_PART_BYTES) as archive:
        for path, content in contents.items():
            archive.add_bytes(path, content)
        archive.add("models/sparse", sparse)
        archive.close(Facts("", "", ""), key)
    with tarfile.open(tmp_path / "b") as archive:  # a person without us still gets at the bytes
        assert archive.getnames() == [*(f"files/{number:08d}" for number in range(1, 10)), INDEX]
    restored = restore_backup(tmp_path / "b", Home(tmp_path / "home"), public=key.public_key()).home
    assert {path: (restored / path).read_bytes() for path in contents} == contents
    assert (restored / "models" / "sparse").read_bytes() == sparse.read_bytes()
    assert (restored / "models" / "sparse").stat().st_blocks * 512 < 3 * 2**20
    data = bytearray((tmp_path / "b").read_bytes())
    first, second = (data.index(f"files/{number:08d}".encode()) for number in (5, 6))
    data[first : first + BLOCK + MIN_PART_BYTES], data[second : second + BLOCK + MIN_PART_BYTES] = (
        data[second : second + BLOCK + MIN_PART_BYTES],
        data[first : first + BLOCK + MIN_PART_BYTES],
    )
    (tmp_path / "b").write_bytes(data)
    assert refused(tmp_path / "b", tmp_path / "again", public=key.public_key()) == "bundle_invalid"


@pytest.fixture
def strangers_home() -> Iterator[Home]:
    """The home of another user, in a folder that every user may pass through."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the home of another user")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        home = Home(Path(place) / "home")
        home.create()
        append_one_record(home)
        give(home.path)
        yield home


def give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def test_links_in_a_home_bring_nothing_of_roots_into_the_backup(strangers_home: Home, tmp_path: Path) -> None:
    home, place = strangers_home, strangers_home.path.parent
    secret = place / "secret"
    secret.mkdir()
    (secret / "shadow").write_text("root:$y$secret")
    secret.chmod(0o700)
    (home.blobs / "aa").mkdir()
    for link in (home.blobs / "aa" / "ab12", home.path / "note", home.audit / "9999999999999998.log"):
        link.symlink_to(secret / "shadow")
    (home.blobs / "bb").symlink_to(secret)
    (home.path / "folder").symlink_to(secret)
    os.mkfifo(home.path / "pipe")
    give(home.path)
    with pytest.raises(ApplianceError) as broken:  # a link cannot be a part of the log: said, not followed
        take_backup(home, tmp_path / "b")
    assert broken.value.code in {"audit_broken", "home_invalid"}
    (home.audit / "9999999999999998.log").unlink()
    index = take_backup(home, tmp_path / "b")
    assert b"$y$secret" not in (tmp_path / "b").read_bytes()
    assert not [file.path for file in index.files if file.path.startswith("blobs/") or file.path in {"note", "pipe"}]
    assert (os.geteuid(), (tmp_path / "b").stat().st_uid) == (0, 0), "root is root again, and wrote the file"
    (home.path / "box.db").symlink_to(secret / "shadow")
    with pytest.raises(ApplianceError, match="no plain file"):
        take_backup(home, tmp_path / "b")


def test_a_home_that_root_restores_belongs_to_who_had_it(strangers_home: Home, tmp_path: Path) -> None:
    take_backup(strangers_home, tmp_path / "b")
    done = restore_backup(tmp_path / "b", strangers_home, replace=True)
    assert {path.lstat().st_uid for path in (done.home, *done.home.rglob("*"))} == {STRANGER}
    assert done.home.stat().st_mode & 0o777 == 0o700
    assert done.audit_records == 1


def test_a_home_that_root_restores_anew_belongs_to_the_user_of_the_site(strangers_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_backup(strangers_home, tmp_path / "b")
    assert restore_backup(tmp_path / "b", Home(tmp_path / "mine")).home.stat().st_uid == 0
    monkeypatch.setenv("APPLIANCE_SITE", str(tmp_path / "site"))
    (tmp_path / "site").mkdir(mode=0o755)
    write_settings(Site(tmp_path / "site"), Settings(str(tmp_path / "new"), user="nobody"))
    made = restore_backup(tmp_path / "b", Home(tmp_path / "new")).home
    assert {path.lstat().st_uid for path in (made, *made.rglob("*"))} == {STRANGER}


def test_a_backup_inside_the_home_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "small")
    home.create()
    append_one_record(home)
    (tmp_path / "way").symlink_to(home.path)
    for target in (home.path / "b", home.logs / "b", tmp_path / "way" / "b"):
        with pytest.raises(ApplianceError, match="inside the home") as inside:
            take_backup(home, target)
        assert inside.value.code == "invalid_request"
        assert not target.exists()


def test_a_home_that_is_there_is_kept(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("mine")
    with pytest.raises(ApplianceError, match="not empty"):
        restore_backup(saved, Home(tmp_path / "home"))
    done = restore_backup(saved, Home(tmp_path / "home"), replace=True)
    assert done.aside is not None
    assert (done.aside / "precious").read_text() == "mine"
    assert (tmp_path / "home" / "models.toml").exists()
