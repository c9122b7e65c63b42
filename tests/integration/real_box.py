"""What tests of the real box share: demo files, waiting until documents are ready."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

DEMO = Path(__file__).resolve().parents[2] / "demo" / "library"


def upload(client: httpx.Client, space: str, *files: tuple[str, bytes]) -> list[dict]:
    answer = client.post("/api/documents", params={"space": space}, files=[("file", file) for file in files])
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]


def wait_until(condition, seconds: float = 60.0):
    """Level-triggered wait; returns the first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return value


def settled(client: httpx.Client, document_id: str) -> dict:
    def look():
        document = client.get(f"/api/documents/{document_id}").json()
        done = document["status"] == "failed" or (document["status"] == "ready" and document["embedded_chunks"] >= document["chunks"])
        return document if done else None

    return wait_until(look)


def load_demo(client: httpx.Client) -> None:
    """Both demo spaces, searchable."""
    for folder in sorted(path for path in DEMO.iterdir() if path.is_dir()):
        client.post("/api/spaces", json={"name": folder.name})
        rows = upload(client, folder.name, *((file.name, file.read_bytes()) for file in sorted(folder.iterdir()) if file.is_file()))
        for row in rows:
            assert row["outcome"] in {"created", "unchanged"}, row
            settled(client, row["document"]["id"])
