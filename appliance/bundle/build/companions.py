"""What lies beside a bundle: digests for ``sha256sum --check``, and the program that verifies and installs on a host that has only Python."""

from __future__ import annotations

import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.audit.durable_files import sync_folder, write_once
from appliance.bundle.site.first_contact import zipapp_bytes

INSTALLER_NAME: Final = "appliance-install.pyz"
_READABLE: Final = 0o644
_RUNNABLE: Final = 0o755


def write_companions(bundle: Path, digest: str = "") -> tuple[Path, ...]:
    """Write both beside ``bundle``; ``digest``: its sha256 (hex) when it was asked for. Raises ``disk_full``, ``home_invalid``.

    The installer is what an operator must compare with paper: it checks the bundle, and nothing checks the installer.
    """
    installer = bundle.with_name(INSTALLER_NAME)
    program = zipapp_bytes()
    _put(installer, program, _RUNNABLE)
    sums = bundle.with_name(f"{bundle.name if digest else INSTALLER_NAME}.sha256")
    lines = [f"{sha256(program).hexdigest()}  {INSTALLER_NAME}\n", *([f"{digest}  {bundle.name}\n"] if digest else [])]
    _put(sums, "".join(lines).encode(), _READABLE)
    return installer, sums


def _put(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    write_once(temporary, data, mode=mode)
    temporary.replace(path)
    sync_folder(path.parent)
