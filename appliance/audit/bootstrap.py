"""Opens the audit log of a home: the only file here that names where things lie.

``audit/`` segments, head and lock · ``keys/audit.key.pem`` signs · ``keys/audit.pub.pem`` is for whoever verifies.
"""

from __future__ import annotations

from pathlib import Path

from appliance.audit.log import AuditLog
from appliance.audit.signing import PUBLIC_NAME, load_or_create_key


def audit_folder(home: Path) -> Path:
    """Folder of the log."""
    return home / "audit"


def public_key_path(home: Path) -> Path:
    """The public key file."""
    return home / "keys" / PUBLIC_NAME


async def open_audit(home: Path) -> AuditLog:
    """The audit log of ``home``; makes key and log when absent. Close it with ``aclose`` or use it as ``async with await``.

    Raises:
        ApplianceError: ``audit_broken``, ``home_invalid``, ``disk_full``.
    """
    return await AuditLog.open(audit_folder(home), load_or_create_key(home / "keys"))
