"""A release of a few kilobytes whose box is one HTTP server: what a site installs, switches and rolls back in tests of milliseconds.

The box keeps notes in an SQLite file with a schema version, like the real one: release N migrates the table forward at its start, and its
``services.allinone.schemas`` takes it back. How it misbehaves is baked into its files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from appliance.bundle.format import canonical_json
from appliance.testing.small_bundles import SmallBundle, SmallTrust, small_trust

BOX = """
import http.server, json, os, pathlib, signal, sqlite3, sys, threading, time
RELEASE, HEAD, FAULT = {release}, {head!r}, {fault!r}
home = pathlib.Path(os.environ["APPLIANCE_HOME"])
if FAULT == "crash":
    print("error: this release cannot start (internal)", file=sys.stderr)
    raise SystemExit(3)
box = sqlite3.connect(home / "box.db", isolation_level=None)
box.execute("PRAGMA journal_mode=WAL")
box.execute("BEGIN IMMEDIATE")
box.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
box.execute("CREATE TABLE IF NOT EXISTS gateway_schema_version (version_num TEXT)")
row = box.execute("SELECT version_num FROM gateway_schema_version").fetchone()
if row is None:
    box.execute("INSERT INTO gateway_schema_version VALUES (?)", ("0001",))
    row = ("0001",)
if row[0] > HEAD:
    print("error: the tables are newer than this release (home_invalid)", file=sys.stderr)
    raise SystemExit(35)
for number in range(int(row[0]) + 1, int(HEAD) + 1):
    if FAULT == "migration":
        raise SystemExit("the migration failed")
    box.execute("ALTER TABLE notes ADD COLUMN colour%d TEXT" % number)
    box.execute("UPDATE gateway_schema_version SET version_num = ?", ("%04d" % number,))
box.execute("INSERT INTO notes (text) VALUES (?)", ("started " + str(RELEASE),))
box.execute("COMMIT")
if FAULT == "late":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = FAULT not in ("never-ready", "late")
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(json.dumps(dict(release=RELEASE, ready=ready)).encode())
    def do_POST(self):
        with sqlite3.connect(home / "box.db") as writing:
            writing.execute("INSERT INTO notes (text) VALUES (?)", (self.rfile.read(int(self.headers["content-length"])).decode(),))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
(home / "run").mkdir(exist_ok=True)
place = home / "run" / "box.json"
temporary = place.with_suffix(".tmp")
temporary.write_text(json.dumps(dict(pid=os.getpid(), started_ticks=ticks, url="http://127.0.0.1:%d" % server.server_port)))
temporary.replace(place)
server.serve_forever()
"""
SCHEMAS = """
import argparse, json, pathlib, sqlite3, sys
parser = argparse.ArgumentParser()
parser.add_argument("verb"); parser.add_argument("--home"); parser.add_argument("--to", type=json.loads); parser.add_argument("--check", action="store_true")
options = parser.parse_args()
if {fault!r} == "no-way-back":
    print(json.dumps(dict(code="conflict", hint="restore", message="the gateway tables have no way back"), sort_keys=True, separators=(",", ":")), file=sys.stderr)
    raise SystemExit(13)
if {fault!r} == "crash":
    raise SystemExit("this release cannot even be imported")
box = sqlite3.connect(pathlib.Path(options.home) / "box.db", isolation_level=None)
applied = box.execute("SELECT version_num FROM gateway_schema_version").fetchone()[0]
steps = []
if applied != options.to["gateway"]:
    steps = ["gateway " + applied + " to " + options.to["gateway"]]
    if not options.check:
        box.execute("BEGIN IMMEDIATE")
        for number in range(int(applied), int(options.to["gateway"]), -1):
            box.execute("ALTER TABLE notes DROP COLUMN colour%d" % number)
        box.execute("UPDATE gateway_schema_version SET version_num = ?", (options.to["gateway"],))
        box.execute("COMMIT")
print(json.dumps(dict(steps=steps)))
"""


@dataclass
class FakeRelease:
    """What is in one release.

    Attributes:
        fault: ``crash``, ``never-ready``, ``late`` (and deaf to SIGTERM), ``migration``, ``no-way-back`` or nothing.
        extra: more files of the bundle.
    """

    release: int = 1
    head: str = "0001"
    fault: str = ""
    trust: SmallTrust = field(default_factory=small_trust)
    extra: dict[str, bytes] = field(default_factory=dict)

    @property
    def bundle(self) -> SmallBundle:
        """As a bundle with the sequence ``release``."""
        facts = {"release": self.release, "head": self.head, "fault": self.fault}
        code = BOX
        for name, value in facts.items():
            code = code.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
        files = {
            "app/appliance/__init__.py": b"",
            "app/appliance/cli/__init__.py": b"",
            "app/appliance/cli/main.py": code.encode(),
            "app/services/__init__.py": b"",
            "app/services/allinone/__init__.py": b"",
            "app/services/allinone/schemas.py": SCHEMAS.replace("{fault!r}", repr(self.fault)).encode(),
            "models/llm/big-v1/weights.bin": b"".join(number.to_bytes(4, "big") for number in range(5000)),
            "models/llm/big-v1/release.txt": f"{self.release}".encode(),
            "meta/release.json": canonical_json.encode({"schema_heads": {"gateway": self.head}}),
            **self.extra,
        }
        return SmallBundle(trust=self.trust, files=files, sequence=self.release, version=f"{self.release}.0", chunk_bytes=4096)

    @property
    def generation(self) -> str:
        """Name of its folder."""
        return self.bundle.manifest().generation

    def write(self, folder: Path, *, base: FakeRelease | None = None) -> Path:
        """The bundle file."""
        return self.bundle.write(folder / f"{self.release}{self.fault}{'-delta' if base else ''}.bundle", base=base.bundle if base else None)
