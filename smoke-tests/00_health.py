"""The box lives, is ready, and says so for every part of it."""

from appliance.smoke.box import SmokeBox, expect, shown

TITLE = "alive and ready, every part by name"
SECONDS = 15.0


def run(box: SmokeBox) -> str:
    """``/healthz`` and ``/readyz``; a degraded part is shown, not failed: the box serves without it."""
    expect(box.get("/healthz").get("status") == "alive", "/healthz does not say alive")
    response = box.answer("GET", "/readyz")
    report = response.json()
    red = {name: check["detail"] for name, check in report["checks"].items() if not check["ok"]}
    expect(response.status_code == 200 and not red, f"not ready: {shown(red)}", "see the log of the box, and: appliance doctor")
    degraded = [f"{name}: {check['detail']}" for name, check in report["checks"].items() if str(check["detail"]).startswith("degraded")]
    return f"{len(report['checks'])} checks" + (f"; {'; '.join(degraded)}" if degraded else ", none degraded")
