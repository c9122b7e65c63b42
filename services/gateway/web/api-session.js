/* Who is logged in: the token pair and its renewal.
 *
 * Where tokens live is a trade-off. The access token stays in this module's memory and is never stored. The refresh
 * token is in sessionStorage: a reload keeps the session, closing the tab ends it, other tabs and later users of the
 * machine do not see it. A script running in this origin could read it; that is why the page allows no inline script,
 * no foreign origin and no HTML from answers (CSP, Trusted Types, render.js), and why a refresh token works once only.
 * An HttpOnly cookie would hide it from scripts but brings CSRF and a second way to authenticate to the API.
 * Consequence to know: a *duplicated* tab copies the token, and whichever tab renews first logs the other out. */

import { ApiError, NetworkError, SessionExpired, errorFromAnswer } from "./api-errors.js";

const KEY = "refresh_token";
const RENEW_BEFORE_SECONDS = 20;

/** Emits `expired` when the session ends without the person asking for it. */
export class Session extends EventTarget {
  #access = null;
  #expiresAtMs = 0;
  #refresh = readStored();
  #renewing = null;

  get isOpen() {
    return this.#refresh !== null;
  }

  async login(username, password) {
    this.#take(await post("/api/auth/login", { username, password }));
  }

  /** Forget the tokens here even when the box cannot be told. */
  async logout() {
    const refreshToken = this.#refresh;
    this.#forget();
    if (refreshToken) await post("/api/auth/logout", { refresh_token: refreshToken });
  }

  /** A token good for at least the next seconds. Throws SessionExpired, NetworkError. */
  async bearer() {
    const fresh = this.#access && Date.now() < this.#expiresAtMs - RENEW_BEFORE_SECONDS * 1000;
    if (!fresh) await this.renew();
    return this.#access;
  }

  /** Spend the refresh token for a new pair; callers that come meanwhile share the one request.
   *
   * `rejected`: the access token that the box refused; if it was renewed since, nothing is to be done. */
  async renew(rejected = null) {
    if (rejected !== null && rejected !== this.#access) return;
    this.#renewing ??= this.#renewOnce().finally(() => {
      this.#renewing = null;
    });
    await this.#renewing;
  }

  async #renewOnce() {
    const spent = this.#refresh;
    if (!spent) throw new SessionExpired();
    let pair;
    try {
      pair = await post("/api/auth/refresh", { refresh_token: spent });
    } catch (error) {
      if (!(error instanceof ApiError) || ![400, 401, 403].includes(error.status)) throw error;
      if (this.#refresh === spent) this.expire();
      throw new SessionExpired();
    }
    if (this.#refresh === spent) this.#take(pair);
  }

  expire() {
    this.#forget();
    this.dispatchEvent(new Event("expired"));
  }

  #take(pair) {
    this.#access = pair.access_token;
    this.#expiresAtMs = Date.now() + pair.expires_in * 1000;
    this.#refresh = pair.refresh_token;
    store(pair.refresh_token);
  }

  #forget() {
    this.#access = null;
    this.#refresh = null;
    store(null);
  }
}

async function post(path, body) {
  let response;
  let text;
  try {
    response = await fetch(path, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
      credentials: "omit", cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    throw new NetworkError(String(error));
  }
  if (!response.ok) throw errorFromAnswer(response.status, text, (name) => response.headers.get(name));
  return text ? JSON.parse(text) : null;
}

function readStored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(token) {
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    /* storage forbidden: the session ends with the page */
  }
}
