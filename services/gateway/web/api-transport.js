/* Requests of a logged-in person: token on, errors typed, one renewal after a 401; uploads with progress; SSE. */

import { ApiError, NetworkError, errorFromAnswer, isAbort } from "./api-errors.js";

/** Emits `reached` after any answer of the box and `lost` when there was none. */
export class Transport extends EventTarget {
  #session;

  constructor(session) {
    super();
    this.#session = session;
  }

  /** An answer with status 2xx. Throws ApiError, NetworkError, SessionExpired, AbortError. */
  async send(method, path, { query, json, form, signal } = {}) {
    const url = withQuery(path, query);
    const first = await this.#bearer();
    let response = await this.#once(method, url, first, { json, form, signal });
    if (response.status === 401) {
      await this.#renew(first);
      response = await this.#once(method, url, await this.#bearer(), { json, form, signal });
      if (response.status === 401) this.#session.expire();
    }
    if (response.ok) return response;
    throw errorFromAnswer(response.status, await this.#body(response, "text"), (name) => response.headers.get(name));
  }

  /** The decoded JSON of a 2xx answer; null for an empty one. */
  async json(method, path, options) {
    const text = await this.#body(await this.send(method, path, options), "text");
    return text ? JSON.parse(text) : null;
  }

  /** The bytes of a 2xx answer. */
  async blob(method, path, options) {
    return this.#body(await this.send(method, path, options), "blob");
  }

  /** The line may also break between the head of an answer and its end. */
  async #body(response, kind) {
    try {
      return await response[kind]();
    } catch (error) {
      throw isAbort(error) ? error : this.#lost(error);
    }
  }

  /** Server-sent events as `{event, data}`, until the box closes the stream. EventSource cannot carry the token. */
  async *events(method, path, options) {
    const response = await this.send(method, path, options);
    try {
      yield* parseEvents(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      throw isAbort(error) ? error : this.#lost(error);
    }
  }

  /** One form by XMLHttpRequest, because fetch reports no upload progress. `onProgress` gets 0..1. */
  async upload(path, { query, form, signal, onProgress }) {
    const url = withQuery(path, query);
    const first = await this.#bearer();
    try {
      return await this.#uploadOnce(url, first, form, signal, onProgress);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
    }
    await this.#renew(first);
    return this.#uploadOnce(url, await this.#bearer(), form, signal, onProgress);
  }

  async #bearer() {
    return this.#guarded(() => this.#session.bearer());
  }

  async #renew(rejected) {
    return this.#guarded(() => this.#session.renew(rejected));
  }

  async #guarded(work) {
    try {
      return await work();
    } catch (error) {
      throw error instanceof NetworkError ? this.#lost(error) : error;
    }
  }

  async #once(method, url, token, { json, form, signal }) {
    const headers = { authorization: `Bearer ${token}`, accept: "application/json" };
    if (json !== undefined) headers["content-type"] = "application/json";
    try {
      const body = json === undefined ? form : JSON.stringify(json);
      const response = await fetch(url, { method, headers, body, signal, credentials: "omit", cache: "no-store" });
      this.dispatchEvent(new Event("reached"));
      return response;
    } catch (error) {
      throw isAbort(error) ? error : this.#lost(error);
    }
  }

  #uploadOnce(url, token, form, signal, onProgress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", url);
      request.setRequestHeader("authorization", `Bearer ${token}`);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress?.(event.loaded / event.total);
      request.onload = () => {
        if (request.status >= 200 && request.status < 300) return resolve(JSON.parse(request.responseText));
        const header = (name) => request.getResponseHeader(name);
        return reject(errorFromAnswer(request.status, request.responseText, header));
      };
      request.onerror = () => reject(this.#lost("upload interrupted"));
      request.onabort = () => reject(new DOMException("upload cancelled", "AbortError"));
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }

  #lost(cause) {
    this.dispatchEvent(new Event("lost"));
    return cause instanceof NetworkError ? cause : new NetworkError(String(cause));
  }
}

function withQuery(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
  return search ? `${path}?${search}` : path;
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html, without ids and retry times. */
async function* parseEvents(reader) {
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer = (buffer + value).replaceAll("\r\n", "\n");
      let end = buffer.indexOf("\n\n");
      while (end >= 0) {
        const frame = parseFrame(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
        if (frame) yield frame;
        end = buffer.indexOf("\n\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseFrame(text) {
  let event = "message";
  const data = [];
  for (const line of text.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line) || [];
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  return data.length ? { event, data: data.join("\n") } : null;
}
