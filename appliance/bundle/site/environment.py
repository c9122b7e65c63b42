"""Makes a generation runnable: its Python environment out of its own wheels, offline, and the two commands in ``bin``; then marks it complete.

Owns: ``venv/``, ``bin/``, ``complete.json``. The packages come from the wheelhouse, or from an installed generation (``packages``). Needs nothing but a ``python3`` with the module ``venv``: pip comes out of the wheelhouse.
Invariant: ``complete.json`` is written when everything else is on the disk, so power may fail at any time. Before that, what a killed run left in
``venv/`` is believed only within the same boot: after a power cut the mark may be there while the packages are empty.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import format_time
from appliance.bundle.site.durable import put_file, read_file, remove_tree, site_failure, sync_file_system
from appliance.bundle.site.layout import COMPLETE, Generation, Site
from appliance.bundle.site.packages import LOCK, PATH_FILE, Altered, donor, link_packages, origin_of, write_list
from appliance.bundle.site.staging import make_folder
from appliance.kit.errors import ApplianceError

_MARK: Final = "installed.txt"
_NOT_COMPILED: Final = "site-packages/.*/tests?/"  # an eighth of all the code, and no box runs it
_SECONDS: Final = 900.0
_SAID_BYTES: Final = 2000
_BOOT_BYTES: Final = 100
Say = Callable[[str], None]
Observe = Callable[[str], None]


def base_python() -> str:
    """The interpreter of the machine, also when this process runs in an environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def make_environment(site: Site, generation: Generation, home: str, say: Say, observe: Observe) -> None:
    """Make ``venv`` and ``bin``; what a killed run left is made again.

    Raises:
        ApplianceError: ``install_failed`` with the last words of pip, ``disk_full``, ``site_invalid``.
    """
    with ThreadPoolExecutor(1) as beside:
        own_code = beside.submit(_compile, *(generation.path / "app" / name for name in ("appliance", "services")))  # pip uses one processor
        if not _was_filled(generation):
            _fill(site, generation, say, observe)
            put_file(_packages(generation) / PATH_FILE, f"{generation.path / 'app'}\n".encode(), mode=0o444)
            put_file(generation.path / "venv" / _MARK, _boot(), mode=0o444)
        _write_commands(site, generation, home)
        own_code.result()


def _was_filled(generation: Generation) -> bool:
    return bool(_boot()) and read_file(generation.path / "venv" / _MARK, _BOOT_BYTES) == _boot()


def _boot() -> bytes:
    """Random id of this run of the kernel (random(4)); empty when it tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""


def _fill(site: Site, generation: Generation, say: Say, observe: Observe) -> None:
    origin = origin_of(generation, base_python())
    if _link(site, generation, origin, say, observe):
        return
    say("making the Python environment from the wheels of the bundle")
    _make_bare(generation)
    if (generation.path / LOCK).is_file():
        _install_wheels(generation)
        _compile(_packages(generation), "-j", "0", "-x", _NOT_COMPILED, "-s", str(generation.path / "venv"))
    write_list(generation, origin)


def _link(site: Site, generation: Generation, origin: Mapping[str, Any], say: Say, observe: Observe) -> bool:
    """Whether the environment could be taken over from an installed generation."""
    found = donor(site.installed(), origin)
    if found is None:
        return False
    source, files = found
    observe("link")
    say(f"taking over the Python environment of {source.name}: same packages, same interpreter")
    _make_bare(generation)
    try:
        link_packages(source, files, generation, origin)
    except Altered as altered:
        say(f"{altered} in the environment of {source.name} is not what was installed: tell your security officer")
        return False
    observe("linked")
    return True


def _make_bare(generation: Generation) -> None:
    venv = generation.path / "venv"
    remove_tree(venv)
    _run([base_python(), "-I", "-m", "venv", "--without-pip", str(venv)], "a Python environment")


def _packages(generation: Generation) -> Path:
    (packages,) = (generation.path / "venv" / "lib").glob("python3*/site-packages")
    return packages


def complete(generation: Generation, manifest_sha256: str) -> None:
    """Everything to the disk, then the mark. Raises ``disk_full``, ``site_invalid``."""
    document = {"schema_version": 1, "manifest_sha256": manifest_sha256, "completed_at": format_time(datetime.now(UTC)), "python": base_python()}
    sync_file_system(generation.path)
    put_file(generation.path / COMPLETE, canonical_json.encode(document), mode=0o444)


def _install_wheels(generation: Generation) -> None:
    wheelhouse = generation.path / "wheelhouse"
    pips = sorted(wheelhouse.glob("pip-*.whl"))
    if not pips:
        raise ApplianceError("install_failed", "the wheelhouse has no pip", hint="the bundle was built wrongly: ask who built it")
    command = [
        base_python(), "-I", f"{pips[-1]}/pip", "--python", str(generation.python), "--disable-pip-version-check", "--no-input", "--quiet", "install",
        "--no-index", "--no-deps", "--require-hashes", "--no-compile", "--no-cache-dir", "--only-binary", ":all:", "--no-warn-script-location",
        "--find-links", str(wheelhouse), "-r", str(generation.path / LOCK),
    ]  # fmt: skip
    _run(command, "the packages of the wheelhouse")


def _compile(folder: Path, *arguments: str | Path) -> None:
    """Byte code now, never checked against the source again: the files cannot change, and the user of the box may not write here."""
    options = ["-q", "--invalidation-mode", "unchecked-hash"]
    _run(
        [base_python(), "-I", "-m", "compileall", *options, *map(str, arguments), str(folder)], "byte code", must_succeed=False
    )  # templates are no Python


def _write_commands(site: Site, generation: Generation, home: str) -> None:
    folder = generation.path / "bin"
    make_folder(folder)
    variables = {
        "APPLIANCE_SITE": str(site.path),
        "APPLIANCE_GENERATION": str(generation.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    exports += f': "${{APPLIANCE_HOME:={_quoted(home)}}}"\nexport APPLIANCE_HOME\n'
    python = shlex.quote(str(generation.python))
    put_file(folder / "appliance", f'#!/bin/sh\n{exports}exec {python} -m appliance.cli.main "$@"\n'.encode(), mode=0o555)
    put_file(folder / "python", f'#!/bin/sh\n{exports}exec {python} "$@"\n'.encode(), mode=0o555)


def _quoted(text: str) -> str:
    """For use inside double quotes of a shell."""
    return "".join(f"\\{sign}" if sign in '\\"$`}' else sign for sign in text)


def _run(command: list[str], what: str, *, must_succeed: bool = True) -> None:
    try:
        ended = subprocess.run(
            command, env=bare_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, cwd="/", umask=0o022
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ApplianceError("install_failed", f"cannot make {what}: {exc}", hint="check that python3 of this machine works, then repeat") from exc
    if ended.returncode and must_succeed:
        said = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-_SAID_BYTES:]
        if "No space left" in said or shutil.disk_usage(command[-1] if Path(command[-1]).exists() else "/").free < 2**20:
            raise site_failure(Path(what), OSError(28, "No space left on device"))
        raise ApplianceError(
            "install_failed", f"cannot make {what}: {said}", hint="on a bare host: apt-get install python3-venv; then repeat the command"
        )


def bare_environment() -> dict[str, str]:
    """Nothing of the caller's settings: no index, no proxy, no Python path reaches the tools."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": "/", "PIP_CONFIG_FILE": os.devnull, "TMPDIR": tempfile.gettempdir()}
