"""Fuzzes every parser of a bundle with documents that are nearly right: trees with exchanged nodes, bytes with exchanged slices, signed or not.

``make test`` runs it bounded (``test_hostile_bundles_fuzz.py``). Longer: ``python -m tests.hostile.fuzz_bundles --seconds 180 [--seed N]``; with
``--atheris`` (where it is installed) coverage leads the way through the same targets. A failure prints the seed that makes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from appliance.bundle.format.canonical_json import encode
from appliance.bundle.format.container import PROVENANCE
from appliance.bundle.format.delta import Delta, parse_delta
from appliance.bundle.format.dsse import parse_envelope
from appliance.bundle.format.manifest import parse_manifest
from appliance.bundle.format.trust_root import chain_bytes, parse_chain, parse_root
from appliance.bundle.inspection import difference, read_contents, summary
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.bundle.verify import STATEMENT_TYPE
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import SmallKey, assemble, sign, small_bundle, small_trust
from tests.hostile.bundle_case import honest, trust, with_chain, with_head, with_manifest

SLOWEST_SECONDS = 3.0
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**53 - 1,
    2**53,
    10**30,
    "",
    "a",
    ".",
    "..",
    "/",
    "\0",
    "\ud800",
    "é",
    "0" * 64,
    "f" * 64,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    0.5,
]
ODD += ["app/x", "APP/X", "0644", "0755", "bundle", "root", "ed25519", "2026-11-21T10:00:00Z", "9999-12-31T23:59:59Z", "x" * 500, [["0" * 64, 1]] * 3]


@dataclass(frozen=True)
class Target:
    """A parser, the documents to begin with, and whether what it accepts must be written back the same."""

    name: str
    seeds: tuple[bytes, ...]
    parse: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None = None


@cache
def targets() -> tuple[Target, ...]:
    """All parsers; the last ones take a whole file, with the mutated document signed by the right keys."""
    old, new = honest(), honest(sequence=8)
    new.files["app/x"] = b"x" * 3000
    rotated = trust()
    rotated.rotate([SmallKey("new-1"), SmallKey("new-2")], 2)
    manifests = (old.manifest().to_bytes(), new.manifest().to_bytes(), small_bundle({"app/x": b""}).manifest().to_bytes())
    envelopes = (old.provenance(manifests[0]), small_bundle(trust=small_trust(keys=5, threshold=4)).provenance(manifests[1]))
    chains = (chain_bytes(trust().chain), chain_bytes(rotated.chain))
    roots = (trust().chain[0].payload, rotated.chain[1].payload)
    delta = Delta.between(old.manifest(), new.manifest())
    statement = encode(old.statement(old.manifest().digest))
    return (
        Target("manifest", manifests, parse_manifest, lambda manifest: manifest.to_bytes()),
        Target("envelope", envelopes, lambda data: parse_envelope(data, "it", payload_type=STATEMENT_TYPE), lambda envelope: envelope.to_bytes()),
        Target("chain", chains, parse_chain, chain_bytes),
        Target("root", roots, parse_root, lambda root: root.to_bytes()),
        Target("delta", (delta.to_bytes(), Delta(delta.base, ()).to_bytes()), parse_delta, lambda found: found.to_bytes()),
        Target("file", (old.to_bytes(), new.to_bytes(base=old)), _read_file),
        Target("signed-manifest", manifests, lambda data: _read_file(with_manifest(data))),
        Target("signed-statement", (statement,), lambda data: _read_file(with_head(PROVENANCE, sign(STATEMENT_TYPE, data, trust().keys).to_bytes()))),
        Target("file-envelope", envelopes, lambda data: _read_file(with_head(PROVENANCE, data))),
        Target("file-chain", chains, lambda data: _read_file(with_chain(data))),
        Target("file-delta", (delta.to_bytes(),), lambda data: _read_file(_with_delta(new.members(base=old), data))),
    )


def attack(target: Target, random: Random) -> bool:
    """Mutate one document and feed it; True when it was accepted. Raises AssertionError for anything but a coded refusal in time."""
    data = mutated(target.seeds, random)
    start = time.process_time()
    try:
        value = target.parse(data)
    except ApplianceError as error:
        assert error.hint, f"{target.name}: a refusal without a hint"
        assert len(error.message) < 1000, f"{target.name}: {len(error.message)} characters of message"
        return False
    finally:
        seconds = time.process_time() - start
        assert seconds < SLOWEST_SECONDS, f"{target.name}: {seconds:.1f} s for {len(data)} bytes"
    if target.name == "file":
        assert data in target.seeds, "a file was verified that nobody made"
    if target.write is not None:
        assert target.write(value) == data, f"{target.name}: accepted, but written otherwise"
    return True


def mutated(seeds: tuple[bytes, ...], random: Random) -> bytes:
    """A document that is nearly one of ``seeds``."""
    data = random.choice(seeds)
    if random.random() < 0.6 and data[:1] in b"{[":
        data = _tree_mutated(data, json.loads(random.choice(seeds)), random)
    for _ in range(random.choice((0, 1, 1, 2, 5)) if data not in seeds else 1):
        data = _bytes_mutated(data, random.choice(seeds), random)
    return data


def _tree_mutated(data: bytes, other: Any, random: Random) -> bytes:
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(document))
        if not places:
            break
        container, key = random.choice(places)
        donor, donor_key = random.choice(list(_places(other)) + places)
        match random.randrange(6):
            case 0:
                container[key] = deepcopy(random.choice(ODD))
            case 1:
                container[key] = deepcopy(donor[donor_key])
            case 2:
                del container[key]
            case 3 if isinstance(container, list):
                container.extend(deepcopy(container[key]) for _ in range(random.choice((1, 2, 100))))
            case 4 if isinstance(container, dict):
                container[str(random.choice(ODD))] = deepcopy(donor[donor_key])
            case _:
                container[key] = random.choice((str, repr, lambda value: [value]))(container[key])
    try:
        return encode(document)
    except (ValueError, TypeError, RecursionError):
        return (json.dumps(document, sort_keys=random.random() < 0.8, separators=(",", ":"), default=str) + "\n").encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _bytes_mutated(data: bytes, other: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((0, 1, 1, 8, 64, 512, 4096)))
    from_other = random.randrange(len(other) + 1)
    middle: bytes = random.choice(
        (
            b"",
            bytes([random.randrange(256)]),
            bytes(b ^ (1 << random.randrange(8)) for b in data[start : start + 1]),
            other[from_other : from_other + end - start],
            data[start:end] * 2,
            bytes(end - start),
            random.choice((b'"', b"{", b"[" * 2000, b",", b"\\", b"\\u0000", b"\xff", b"9" * 5000, b"\n", b" ", b'"a":1,')),
        )
    )
    return data[:start] + middle + data[end:]


def _with_delta(members: list[tuple[str, bytes]], delta: bytes) -> bytes:
    return assemble([(name, delta if name == "delta.json" else content) for name, content in members])


def _read_file(data: bytes) -> None:
    """Inspect, compare and verify a whole file. Whether inspection refuses does not matter; verification decides."""
    path = _scratch()
    path.write_bytes(data)
    with open_bundle(path) as file:
        try:
            contents = read_contents(file)
            summary(contents)
            difference(contents, contents)
        except ApplianceError as error:
            assert error.hint
        done = verify_bundle(file, trust().pin, honest().policy, threads=1)
    assert len(done.signers) >= 2, "verified below the threshold"


@cache
def _scratch() -> Path:
    memory = Path("/dev/shm")
    descriptor, name = tempfile.mkstemp(suffix=".bundle", dir=memory if os.access(memory, os.W_OK) else None)
    os.close(descriptor)
    return Path(name)


def main() -> None:
    """Run for a while; a line for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    if options.atheris:
        return _with_atheris(options.seconds)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(6), "big")
    counts = {target.name: [0, 0] for target in targets()}
    end, number = time.monotonic() + options.seconds, seed
    try:
        while time.monotonic() < end:
            for target in targets():
                accepted = attack(target, Random(number))
                counts[target.name][0] += 1
                counts[target.name][1] += accepted
            number += 1
    except BaseException:
        print(f"failed: {target.name}, --seed {number}")
        raise
    finally:
        _scratch().unlink(missing_ok=True)
    for name, (tried, accepted) in counts.items():
        print(f"{name:17} {tried:>8} tried {accepted:>6} accepted")
    print(f"peak memory {Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]} kB")
    return None


def _with_atheris(seconds: float) -> None:
    import sys

    import atheris  # not in the locks: install it where you want to use it

    def once(data: bytes) -> None:
        choice, document = (data[:1] or b"\0")[0], data[1:]
        target = targets()[choice % len(targets())]
        attack(Target(target.name, (document or b"{}",), target.parse, target.write), Random(choice))

    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
