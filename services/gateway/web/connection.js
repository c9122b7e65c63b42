/* Is the box there? One answer for the whole page, from `/healthz`, asked only after something failed.
 *
 * A lost request alone proves nothing (a server may cut an upload that is too large), so it only starts a probe. */

const PROBE_TIMEOUT_MS = 4_000;
const PROBE_EVERY_MS = 2_000;

/** Emits `change` when `online` changes. */
export class Connection extends EventTarget {
  #timer = null;
  #probing = null;
  online = true;

  constructor(client) {
    super();
    client.transport.addEventListener("lost", () => this.probe());
    client.transport.addEventListener("reached", () => this.#set(true));
    client.chat.addEventListener("state", () => {
      if (client.chat.state === "lost") this.probe();
      if (client.chat.state === "open") this.#set(true);
    });
    window.addEventListener("online", () => this.probe());
    window.addEventListener("offline", () => this.probe());
  }

  /** Ask the box now; calls that come meanwhile share the answer. */
  probe() {
    clearTimeout(this.#timer);
    this.#probing ??= alive().then((online) => {
      this.#probing = null;
      this.#set(online);
      if (!online) this.#timer = setTimeout(() => this.probe(), PROBE_EVERY_MS);
      return online;
    });
    return this.#probing;
  }

  #set(online) {
    if (this.online === online) return;
    this.online = online;
    if (online) clearTimeout(this.#timer);
    this.dispatchEvent(new Event("change"));
  }
}

async function alive() {
  try {
    const response = await fetch("/healthz", {
      cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    });
    await response.text();
    return response.ok;
  } catch {
    return false;
  }
}
