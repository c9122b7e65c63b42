"""The audit log is whole, and this very run is in it."""

from appliance.audit.bootstrap import audit_folder, public_key_path
from appliance.audit.reading import iterate_records
from appliance.audit.signing import load_public_key
from appliance.audit.verify import verify_log
from appliance.smoke.box import SmokeBox, SmokeFailure, expect, unreadable

TITLE = "audit: the chain holds and has this run"
SECONDS = 300.0
_LOOK_BACK = 5_000


def run(box: SmokeBox) -> str:
    """Leave a record, check every hash and signature with the public key, then find the record."""
    box.on_this_machine()
    box.get("/api/me")
    folder, key_file = audit_folder(box.home.path), public_key_path(box.home.path)
    try:
        next(folder.iterdir())
        key_file.stat()
    except StopIteration:
        raise SmokeFailure(f"{folder} is empty", "the box has no audit log: see its log") from None
    except OSError as error:
        raise unreadable(folder, error) from error
    verdict = verify_log(folder, load_public_key(key_file))
    expect(verdict.fault is None, f"the chain is broken: {verdict.fault}", "keep a copy of the log and run: appliance audit verify")
    own = [record for record in iterate_records(folder, first_seq=max(1, verdict.records - _LOOK_BACK)) if record.trace_id == box.request_id]
    expect(own, f"no record of this run ({box.request_id})", "the box may serve another home: compare APPLIANCE_HOME")
    return f"{verdict.records} records, chain and signatures hold; {len(own)} of this run ({box.request_id})"
