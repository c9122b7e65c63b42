"""Root file systems for the bare-host bed: a small Debian made by debootstrap once and kept outside the repository.

Owns: where the mirror comes from (this machine's apt configuration, never a literal), the list of packages, the cache. Does not own: booting (``nspawn_bed``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2")
"""On top of debootstrap's ``minbase``. No python3: a bare host has none, the playbook brings it from the bundle."""

_APT: Final = Path("/etc/apt")
_RECIPE: Final = "2"
_MAKE_SECONDS: Final = 900


@dataclass(frozen=True, slots=True)
class Archive:
    """One entry of apt's sources."""

    address: str
    suite: str
    keyring: str = ""


def cache_folder() -> Path:
    """``$APPLIANCE_TEST_ROOTS``, or a folder of this machine that outlives checkouts."""
    given = os.environ.get("APPLIANCE_TEST_ROOTS")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "appliance-test-roots"


def own_archive(apt: Path = _APT, codename: str | None = None) -> Archive | None:
    """The archive this machine was installed from: the first enabled entry for the release's own suite with component ``main``."""
    codename = codename or _codename()
    for path in sorted([apt / "sources.list", *apt.glob("sources.list.d/*")]):
        if not path.is_file():
            continue
        entries = _deb822(path.read_text()) if path.suffix == ".sources" else _one_line(path.read_text())
        for address, suites, components, keyring in entries:
            if codename in suites and "main" in components:
                return Archive(address, codename, keyring)
    return None


def _one_line(text: str) -> Iterator[tuple[str, list[str], list[str], str]]:
    """sources.list(5), one-line style: ``deb [options] address suite component…``."""
    for line in text.splitlines():
        options, words = "", line.partition("#")[0].replace("\t", " ").strip()
        if not words.startswith("deb "):
            continue
        words = words.removeprefix("deb ").strip()
        if words.startswith("["):
            options, _, words = words[1:].partition("]")
        address, suite, *components = words.split()
        keyring = next((option.removeprefix("signed-by=") for option in options.split() if option.startswith("signed-by=")), "")
        yield address, [suite], components, keyring


def _deb822(text: str) -> Iterator[tuple[str, list[str], list[str], str]]:
    """sources.list(5), deb822 style: stanzas of ``Field: value``, continued on lines that begin with a blank."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[name] += " " + line.strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false"}:
            continue
        keyring = fields.get("signed-by", "")
        for address in fields.get("uris", "").split():
            yield address, fields.get("suites", "").split(), fields.get("components", "").split(), keyring if keyring.startswith("/") else ""


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return ""


def bare_root() -> Path:
    """The kept root: made now when this machine has none yet (about a minute and 120 MB of packages from the archive). Read only for callers.

    Raises:
        RuntimeError: no archive is configured, or debootstrap failed; the log lies beside the cache.
    """
    archive = own_archive()
    if archive is None:
        raise RuntimeError("apt on this machine names no archive for its own release")
    recipe = "\n".join([_RECIPE, archive.suite, *PACKAGES])
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{archive.suite}-{sha256(recipe.encode()).hexdigest()[:12]}"
    with _alone(folder / f"{kept.name}.lock"):
        if not kept.is_dir():
            _make(archive, kept)
    return kept


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(archive: Archive, kept: Path) -> None:
    making = kept.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    keyring = [f"--keyring={archive.keyring}"] if archive.keyring and Path(archive.keyring).is_file() else []
    command = ["debootstrap", "--variant=minbase", *keyring, f"--include={','.join(PACKAGES)}", archive.suite, str(making), archive.address]
    log = kept.with_suffix(".log")
    with log.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=_MAKE_SECONDS)
    if done.returncode:
        shutil.rmtree(making, ignore_errors=True)
        raise RuntimeError(f"debootstrap failed with {done.returncode}; see {log}")
    _make_bare(making)
    making.rename(kept)


def _make_bare(root: Path) -> None:
    """What a host after the installer's first boot has, less everything that would name a way out."""
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    for index in (root / "var/lib/apt/lists").glob("*"):
        if index.is_file():
            index.unlink()
    (root / "etc/apt/sources.list").write_text("# sealed: nothing here\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").write_text("bare-host\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 bare-host\n::1 localhost\n")
    (root / "etc/machine-id").write_text("")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
