"""The state machine of a verification: its order, its finality, overrides, deltas, and what happens to the file meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest

from appliance.bundle.format.container import BLOB_FOLDER, END, Member
from appliance.bundle.format.trust_root import chain_bytes
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.bundle.verify import BundleVerification, Installed, Pin, Policy
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import NOW, TARGET, SmallKey, small_bundle, small_trust


def verified(path, bundle, policy=None, **options):
    with open_bundle(path) as file:
        return verify_bundle(file, bundle.trust.pin, policy or bundle.policy, **options)


def refusal(path, bundle, policy=None, **options):
    with pytest.raises(ApplianceError) as refused:
        verified(path, bundle, policy, **options)
    return refused.value


def steps_of(bundle, verification):
    manifest = bundle.manifest().to_bytes()
    data = bundle.to_bytes()
    start = data.index(BLOB_FOLDER.encode())
    members = []
    return [
        lambda: verification.accept_roots(chain_bytes(bundle.trust.chain)),
        lambda: verification.accept_provenance(bundle.provenance(manifest)),
        lambda: verification.accept_manifest(manifest),
        lambda: verification.accept_policy(),
        lambda: members.extend(verification.accept_layout(start, len(data))),
        lambda: [verification.accept_blob(member, member.name.removeprefix(BLOB_FOLDER)) for member in members],
        lambda: verification.finish(),
    ]


def test_the_steps_lead_to_a_verified_bundle():
    bundle = small_bundle()
    results = [step() for step in steps_of(bundle, BundleVerification(bundle.trust.pin, bundle.policy))]
    assert results[-1].manifest == bundle.manifest()
    assert results[-1].overrides == ()


@pytest.mark.parametrize("left_out", range(6))
def test_no_step_can_be_left_out(left_out):
    bundle = small_bundle()
    steps = steps_of(bundle, BundleVerification(bundle.trust.pin, bundle.policy))
    if left_out == 5:  # blobs: finishing without them is a refusal, not a bug
        with pytest.raises(ApplianceError, match="not checked"):
            [step() for step in (*steps[:5], steps[6])]
        return
    with pytest.raises(RuntimeError):
        [step() for number, step in enumerate(steps) if number != left_out]


@pytest.mark.parametrize("repeated", range(5))
def test_no_step_is_done_twice(repeated):
    bundle = small_bundle()
    steps = steps_of(bundle, BundleVerification(bundle.trust.pin, bundle.policy))
    with pytest.raises(RuntimeError):
        [step() for step in (*steps[: repeated + 1], steps[repeated])]


def test_a_refusal_is_final():
    bundle = small_bundle()
    verification = BundleVerification(Pin(first_fingerprint="0" * 64), bundle.policy)
    steps = steps_of(bundle, verification)
    with pytest.raises(ApplianceError):
        steps[0]()
    for step in (*steps[:5], steps[6]):
        with pytest.raises(RuntimeError):
            step()


def test_a_blob_counts_once_and_only_with_its_own_digest():
    bundle = small_bundle()
    verification = BundleVerification(bundle.trust.pin, bundle.policy)
    steps = steps_of(bundle, verification)
    for step in steps[:6]:
        step()
    blob = bundle.manifest().blobs[0]
    with pytest.raises(RuntimeError, match="twice"):
        verification.accept_blob(Member(BLOB_FOLDER + blob.sha256, 0, blob.size), blob.sha256)
    again = BundleVerification(bundle.trust.pin, bundle.policy)
    for step in steps_of(bundle, again)[:5]:
        step()
    with pytest.raises(ApplianceError) as refused:
        again.accept_blob(Member(BLOB_FOLDER + blob.sha256, 0, blob.size), "0" * 64)
    assert refused.value.code == "bundle_altered"
    with pytest.raises(RuntimeError):
        again.finish()


def test_an_override_skips_nothing_and_is_noted(tmp_path):
    bundle = small_bundle(expires_at=NOW, sequence=3)
    path = bundle.write(tmp_path / "a.bundle")
    installed = Installed("embedded", 9, "0" * 64)
    policy = Policy(NOW, TARGET, installed, allow_older=True, allow_expired=True)
    assert len(verified(path, bundle, policy).overrides) == 2
    assert refusal(path, bundle, replace(policy, allow_older=False)).code == "bundle_older"
    assert refusal(path, bundle, replace(policy, allow_expired=False)).code == "bundle_expired"
    assert refusal(path, bundle, replace(policy, installed=replace(installed, sequence=3))).code == "bundle_older"  # not even with the override
    data = bytearray(path.read_bytes())
    data[-len(END) - 600] ^= 1
    path.write_bytes(data)
    assert refusal(path, bundle, policy).code == "bundle_altered"


def test_what_is_installed_may_be_verified_again(tmp_path):
    bundle = small_bundle(sequence=3)
    installed = Installed("embedded", 3, bundle.manifest().digest)
    assert verified(bundle.write(tmp_path / "a.bundle"), bundle, Policy(NOW, TARGET, installed)).overrides == ()


def test_the_root_moves_forward_through_rotations(tmp_path):
    trust = small_trust(keys=3, threshold=2)
    first = trust.current
    for turn in range(4):
        trust.rotate([SmallKey(f"turn-{turn}-{name}") for name in "abc"], 2)
    bundle = small_bundle(trust=trust)
    with open_bundle(bundle.write(tmp_path / "a.bundle")) as file:
        for pin in (Pin(root=first), Pin(root=trust.current), Pin(first_fingerprint=trust.fingerprint), Pin(trust.current, trust.fingerprint)):
            assert verify_bundle(file, pin, bundle.policy).root.version == 5


def test_an_expired_root_in_between_does_not_matter_but_the_last_does(tmp_path):
    trust = small_trust(expires_at=NOW - timedelta(days=1))
    trust.expires_at = NOW + timedelta(days=1)
    trust.rotate([SmallKey("new")])
    bundle = small_bundle(trust=trust)
    path = bundle.write(tmp_path / "a.bundle")
    assert verified(path, bundle).root.version == 2
    assert refusal(path, bundle, Policy(NOW + timedelta(days=1), TARGET)).code == "bundle_expired"


def test_a_delta_holds_alone_and_with_its_base_only(tmp_path):
    old, new = small_bundle(), small_bundle(sequence=2)
    new.files["app/appliance/__init__.py"] = b"changed"
    done = verified(new.write(tmp_path / "d.bundle", base=old), new)
    assert [sha256(b"changed").hexdigest()] == list(done.delta.blobs)
    done.delta.check_base(done.manifest, old.manifest())
    for wrong in (new, small_bundle({"app/x": b"x"}), small_bundle(version="0.1.1")):
        with pytest.raises(ApplianceError) as refused:
            done.delta.check_base(done.manifest, wrong.manifest())
        assert refused.value.code == "bundle_incomplete"
    lying = replace(done.delta, base=replace(done.delta.base, manifest_sha256=small_bundle({"app/x": b"x"}).manifest().digest))
    with pytest.raises(ApplianceError, match="neither in the delta nor in its base"):
        lying.check_base(done.manifest, small_bundle({"app/x": b"x"}).manifest())


def test_who_writes_into_the_file_during_the_check_is_found(tmp_path):
    bundle = small_bundle({f"app/{number}": os.urandom(600_000) for number in range(4)}, chunk_bytes=2**20)
    path = bundle.write(tmp_path / "a.bundle")

    def meddle(done, _total):
        if done < 700_000:
            with path.open("r+b") as file:  # back to what it was a moment later: the digests see nothing
                os.pwrite(file.fileno(), os.pread(file.fileno(), 1, 9000), 9000)
            os.utime(path, ns=(done, done))

    assert refusal(path, bundle, threads=1, progress=meddle).code == "bundle_altered"
    assert verified(path, bundle)


def test_who_replaces_the_file_during_the_check_is_found(tmp_path):
    bundle = small_bundle({f"app/{number}": os.urandom(600_000) for number in range(4)}, chunk_bytes=2**20)
    path, evil = bundle.write(tmp_path / "a.bundle"), small_bundle({"app/x": b"evil"}).write(tmp_path / "evil")
    error = refusal(path, bundle, threads=1, progress=lambda *_: evil.exists() and evil.replace(path))
    assert (error.code, "replaced" in error.message) == ("bundle_altered", True)


def test_a_blob_that_changes_after_the_check_is_not_handed_out(tmp_path):
    from appliance.bundle.format.container import lay_out

    bundle = small_bundle()
    path = bundle.write(tmp_path / "a.bundle")
    with open_bundle(path) as file:
        done = verify_bundle(file, bundle.trust.pin, bundle.policy)
        member = lay_out(file.heads().end, done.manifest.blobs)[0]
        assert sha256(file.read_blob(member)).hexdigest() == done.manifest.blobs[0].sha256
        with path.open("r+b") as writer:
            writer.seek(member.content_offset)
            writer.write(b"evil")
        with pytest.raises(ApplianceError) as refused:
            file.read_blob(member)
    assert refused.value.code == "bundle_altered"


def test_several_threads_that_fail_at_once_give_one_refusal(tmp_path):
    """The refusal itself, never what another thread meets after it."""
    bundle = small_bundle({f"app/{number}": b"%d" % number * 99 for number in range(4000)}, chunk_bytes=2**20)
    path = bundle.write(tmp_path / "a.bundle")
    data = bytearray(path.read_bytes())
    for at in range(len(data) - len(END) - 1024 * 3900, len(data) - len(END), 1024):
        data[at + 512] ^= 1
    path.write_bytes(data)
    assert {refusal(path, bundle, threads=8).code for _ in range(10)} == {"bundle_altered"}


def test_a_file_cut_while_it_is_read_is_refused(tmp_path):
    bundle = small_bundle({f"app/{number}": os.urandom(600_000) for number in range(4)}, chunk_bytes=2**20)
    path = bundle.write(tmp_path / "a.bundle")
    assert refusal(path, bundle, threads=1, progress=lambda *_: os.truncate(path, 700_000)).code == "bundle_incomplete"


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink("nowhere", path), lambda _: None]
)
def test_what_is_no_file_is_refused_without_waiting(make, tmp_path):
    make(str(tmp_path / "a.bundle"))
    assert refusal(tmp_path / "a.bundle", small_bundle()).code in {"bundle_invalid", "not_found"}


def test_many_small_blobs_are_checked_quickly(tmp_path):
    bundle = small_bundle({f"app/{number:05}.py": b"%d" % number * 60 for number in range(20_000)})
    path = bundle.write(tmp_path / "a.bundle")
    start = time.process_time()
    assert len(verified(path, bundle).manifest.blobs) == 20_000
    assert time.process_time() - start < 5  # 0.5 s here; a read and a lock for each took longer


@pytest.mark.parametrize("where", ["thread", "main"])
def test_an_interrupt_stops_the_threads(where, tmp_path):
    """Without it, Ctrl-C waits until the whole file is hashed."""
    bundle = small_bundle({f"app/{number}": os.urandom(600_000) for number in range(60)}, chunk_bytes=2**20)
    path, calls = bundle.write(tmp_path / "a.bundle"), []

    def watch(done, total):
        calls.append(done)
        if len(calls) == 1 and where == "main":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        elif len(calls) == 1:
            raise KeyboardInterrupt
        assert done < total

    with pytest.raises(KeyboardInterrupt):
        verified(path, bundle, threads=2, progress=watch)
    assert len(calls) < 50


@pytest.mark.slow
def test_a_gigabyte_needs_less_than_200_megabytes(tmp_path):
    """Sparse where the file system can: 1,000 blobs of 1 MiB that are zeros but for their number."""
    script = """
import hashlib, sys
from pathlib import Path
from appliance.bundle.format.container import *
from appliance.bundle.format.manifest import *
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.testing.small_bundles import *
count, size, path = 1000, 2**20, Path(sys.argv[1])
chunks = []
for number in range(count):
    chunks.append(Chunk(hashlib.sha256(b"%08d" % number + bytes(size - 8)).hexdigest(), size))
bundle = small_bundle()
file = BundleFile("models/llm/big-v1/weights.bin", "0644", count * size, "0" * 64, tuple(chunks))
manifest = Manifest("embedded", "1", 1, NOW, bundle.expires_at, TARGET, (Component("models", "models", "1", (file,)),))
heads = assemble([(PROVENANCE, bundle.provenance(manifest.to_bytes())), bundle.members()[1], (MANIFEST, manifest.to_bytes())], b"")
with path.open("wb") as out:
    out.write(heads)
    for number, member in enumerate(lay_out(len(heads), manifest.blobs)):
        out.seek(member.offset)
        out.write(header(member.name, member.size) + b"%08d" % number)
        out.truncate(member.end)
    out.seek(member.end)
    out.write(END)
with open_bundle(path) as opened:
    verify_bundle(opened, bundle.trust.pin, bundle.policy)
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "big.bundle")], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200
