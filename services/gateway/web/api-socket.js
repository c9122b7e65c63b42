/* The chat over one WebSocket: opened when needed, reopened when lost, one turn at a time.
 *
 * Invariants: the token travels in the first message, never in the URL; a frame of a turn that is no longer current is
 * dropped; a turn ends exactly once (`done`, or a thrown error); after `close()` nothing reconnects. */

import { ApiError, NetworkError, SessionExpired } from "./api-errors.js";

const READY_TIMEOUT_MS = 10_000;
const CANCEL_TIMEOUT_MS = 3_000;
const BACKOFF_MS = [0, 500, 1_000, 2_000, 5_000, 10_000];

/** Emits `state` when `state` changes: "closed", "connecting", "open", "lost" (one attempt to come back failed). */
export class ChatSocket extends EventTarget {
  #session;
  #socket = null;
  #opening = null;
  #turn = null;
  #wanted = false;
  #attempt = 0;
  #timer = null;
  state = "closed";

  constructor(session) {
    super();
    this.#session = session;
  }

  /** Keep a connection from now on. */
  start() {
    this.#wanted = true;
    this.retry();
  }

  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#socket = null;
    this.#turn?.fail(new NetworkError("the chat was closed"));
    this.#set("closed");
  }

  /** Try now instead of at the next step of the back-off. */
  retry() {
    if (!this.#wanted) return;
    clearTimeout(this.#timer);
    this.connect().catch(() => {});
  }

  /** Resolves when the box said `ready`. Throws NetworkError, SessionExpired, ApiError. */
  async connect() {
    if (this.#socket?.readyState === WebSocket.OPEN && this.state === "open") return;
    this.#opening ??= this.#openWithRenewal().finally(() => {
      this.#opening = null;
    });
    try {
      await this.#opening;
      this.#attempt = 0;
      this.#set("open");
    } catch (error) {
      if (error instanceof SessionExpired) this.close();
      else this.#comeBack(true);
      throw error;
    }
  }

  async #openWithRenewal() {
    if (this.state !== "lost") this.#set("connecting");
    const token = await this.#session.bearer();
    try {
      await this.#open(token);
    } catch (error) {
      if (error.code !== "unauthenticated") throw error;
      await this.#session.renew(token);
      await this.#open(await this.#session.bearer());
    }
  }

  #open(token) {
    return new Promise((resolve, reject) => {
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      const socket = new WebSocket(`${scheme}://${location.host}/ws/chat`);
      const timer = setTimeout(() => socket.close(), READY_TIMEOUT_MS);
      let ready = false;
      socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token }));
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (ready) return this.#receive(frame);
        clearTimeout(timer);
        if (frame.type === "ready") {
          ready = true;
          this.#socket = socket;
          return resolve();
        }
        socket.close();
        return reject(new ApiError({ status: 401, code: "unauthenticated", ...frame.error }));
      };
      socket.onclose = (event) => {
        clearTimeout(timer);
        reject(closeError(event));
        if (ready && this.#socket === socket) this.#onLost();
      };
    });
  }

  #onLost() {
    this.#socket = null;
    this.#turn?.fail(new NetworkError("the connection was lost"));
    this.#comeBack(false);
  }

  /** The first attempt is immediate and silent (an idle proxy closed the line); only its failure is worth a word. */
  #comeBack(failed) {
    if (!this.#wanted) return;
    this.#set(failed ? "lost" : "connecting");
    clearTimeout(this.#timer);
    const step = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)];
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.retry(), step * (0.75 + Math.random() / 2));
  }

  #set(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  /** One turn: frames `step`, `token`, `citation`, then `done`. `onSent` runs once the question is on its way.
   *
   * Aborting `signal` cancels the turn on the box; the generator then ends with a `done` of reason "cancelled". */
  async *ask({ text, spaces, threadId, model, topK, agent }, { signal, onSent } = {}) {
    await this.#turn?.ended;
    await this.connect();
    let turn = this.#begin({ text, spaces, thread_id: threadId, model, top_k: topK, agent });
    onSent?.();
    const stop = () => this.#cancel(turn);
    signal?.addEventListener("abort", stop);
    let renewed = false;
    let progressed = false;
    try {
      for (;;) {
        let frame;
        try {
          frame = await turn.next();
        } catch (error) {
          if (error.code !== "unauthenticated" || renewed || progressed) throw error;
          renewed = true;
          turn = await this.#askAgain(turn);
          continue;
        }
        progressed = true;
        yield frame;
        if (frame.type === "done") return;
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      if (!turn.over) this.#cancel(turn);
    }
  }

  #begin(question) {
    const turn = new Turn(crypto.randomUUID?.() ?? fallbackId(), question);
    this.#turn = turn;
    turn.ended.then(() => {
      if (this.#turn === turn) this.#turn = null;
    });
    this.#socket.send(JSON.stringify({ type: "ask", id: turn.id, ...question }));
    return turn;
  }

  /** The token ran out between the handshake and the question. */
  async #askAgain(turn) {
    await this.#session.renew();
    this.#socket?.close(1000);
    this.#socket = null;
    this.#set("connecting");
    await this.connect();
    return this.#begin(turn.question);
  }

  #cancel(turn) {
    if (turn.over) return;
    turn.push({ type: "done", id: turn.id, finish_reason: "cancelled", usage: null, refused: false, thread_id: null });
    if (this.#socket?.readyState !== WebSocket.OPEN) return turn.finish();
    this.#socket.send(JSON.stringify({ type: "cancel", id: turn.id }));
    /* A box that does not confirm would block the next turn: then a new connection is the clean way out. */
    const timer = setTimeout(() => !turn.finished && this.#socket?.close(4000), CANCEL_TIMEOUT_MS);
    turn.ended.then(() => clearTimeout(timer));
    return undefined;
  }

  #receive(frame) {
    const turn = this.#turn;
    if (!turn || (frame.id !== undefined && frame.id !== null && frame.id !== turn.id)) return;
    if (frame.type === "error") turn.fail(new ApiError(frame.error));
    else turn.push(frame);
    if (frame.type === "done") turn.finish();
  }
}

/** Frames of one turn, as a queue between the socket and whoever reads. `over`: the reader has its end;
 * `finished`: the box has confirmed it, so the next turn may begin. */
class Turn {
  #queue = [];
  #waiting = null;
  #end;
  over = false;
  finished = false;

  constructor(id, question) {
    this.id = id;
    this.question = question;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  push(frame) {
    if (this.over) return;
    if (frame.type === "done") this.over = true;
    this.#deliver({ frame });
  }

  fail(error) {
    if (!this.over) {
      this.over = true;
      this.#deliver({ error });
    }
    this.finish();
  }

  finish() {
    this.finished = true;
    this.#end();
  }

  #deliver(item) {
    this.#queue.push(item);
    this.#waiting?.();
  }

  async next() {
    if (!this.#queue.length) {
      await new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    const { frame, error } = this.#queue.shift();
    if (error) throw error;
    return frame;
  }
}

/** A refusal may also arrive as a close code: 4401 and 1008 (policy) mean the token, the rest means the line. */
function closeError(event) {
  if (event.code === 4401 || event.code === 1008) {
    return new ApiError({ status: 401, code: "unauthenticated", message: event.reason });
  }
  return new NetworkError(event.reason || `closed with code ${event.code}`);
}

/** randomUUID exists on https and localhost only; a box may be reached by http on its address. */
function fallbackId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
