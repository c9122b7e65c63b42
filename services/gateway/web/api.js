/* The client of the box's API (docs/api.md): one method a call, nothing about the page.
 *
 * Errors are ApiError, NetworkError or SessionExpired; a cancelled call throws AbortError. */

import { Session } from "./api-session.js";
import { ChatSocket } from "./api-socket.js";
import { Transport } from "./api-transport.js";

export { ApiError, NetworkError, SessionExpired, isAbort } from "./api-errors.js";

const at = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;

export class BoxClient {
  session = new Session();
  transport = new Transport(this.session);
  chat = new ChatSocket(this.session);

  #json(method, path, options) {
    return this.transport.json(method, path, options);
  }

  /* identity */
  login(username, password) {
    return this.session.login(username, password);
  }

  logout() {
    this.chat.close();
    return this.session.logout();
  }

  me() {
    return this.#json("GET", "/api/me");
  }

  /* spaces */
  spaces() {
    return this.#json("GET", "/api/spaces").then(({ data }) => data);
  }

  createSpace(name, title) {
    return this.#json("POST", "/api/spaces", { json: { name, title } });
  }

  deleteSpace(space, { force } = {}) {
    return this.#json("DELETE", at("api", "spaces", space), { query: { force } });
  }

  members(space) {
    return this.#json("GET", at("api", "spaces", space, "members")).then(({ data }) => data);
  }

  setMember(space, subject, role) {
    return this.#json("PUT", at("api", "spaces", space, "members", subject), { json: { role } });
  }

  removeMember(space, subject) {
    return this.#json("DELETE", at("api", "spaces", space, "members", subject));
  }

  /* documents */
  documents({ space, status, name, limit, after, signal } = {}) {
    return this.#json("GET", "/api/documents", { query: { space, status, name, limit, after }, signal });
  }

  document(id) {
    return this.#json("GET", at("api", "documents", id));
  }

  /** One file a request, so that each has its own progress and its own answer `{name, document, outcome, error}`. */
  async uploadDocument(space, file, { onProgress, signal } = {}) {
    const form = new FormData();
    form.append("file", file, file.name);
    const { data } = await this.transport.upload("/api/documents", { query: { space }, form, signal, onProgress });
    return data[0];
  }

  /** `{status, pages_done, pages, chunks, embedded_chunks}` until ready or failed. */
  async *documentProgress(id, { signal } = {}) {
    for await (const { event, data } of this.transport.events("GET", at("api", "documents", id, "events"), { signal })) {
      if (event === "progress") yield JSON.parse(data);
    }
  }

  documentText(id, { start, end, signal } = {}) {
    return this.#json("GET", at("api", "documents", id, "text"), { query: { start, end }, signal });
  }

  documentOriginal(id) {
    return this.transport.blob("GET", at("api", "documents", id, "original"));
  }

  deleteDocument(id) {
    return this.#json("DELETE", at("api", "documents", id));
  }

  /* search */
  search(query, { spaces, topK, documentIds, filters, rerank, signal } = {}) {
    const json = { query, spaces, top_k: topK, document_ids: documentIds, filters, rerank };
    return this.#json("POST", "/api/search", { json, signal });
  }

  /* threads */
  threads() {
    return this.#json("GET", "/api/threads").then(({ data }) => data);
  }

  createThread({ title, spaces } = {}) {
    return this.#json("POST", "/api/threads", { json: { title, spaces } });
  }

  thread(id, { signal } = {}) {
    return this.#json("GET", at("api", "threads", id), { signal });
  }

  renameThread(id, title) {
    return this.#json("PATCH", at("api", "threads", id), { json: { title } });
  }

  deleteThread(id) {
    return this.#json("DELETE", at("api", "threads", id));
  }

  /* the OpenAI surface, for a console; the chat page itself talks over the WebSocket */
  models() {
    return this.#json("GET", "/v1/models").then(({ data }) => data);
  }

  model(id) {
    return this.#json("GET", at("v1", "models", id));
  }

  complete(request, { signal } = {}) {
    return this.#json("POST", "/v1/chat/completions", { json: { ...request, stream: false }, signal });
  }

  /** Chunks of a streamed completion, without the closing `[DONE]`. */
  async *completeStream(request, { signal } = {}) {
    const options = { json: { ...request, stream: true }, signal };
    for await (const { data } of this.transport.events("POST", "/v1/chat/completions", options)) {
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }

  embed(input, model = "default") {
    return this.#json("POST", "/v1/embeddings", { json: { input, model } });
  }

  rerank(query, documents, { model, topN, returnDocuments } = {}) {
    const json = { model, query, documents, top_n: topN, return_documents: returnDocuments };
    return this.#json("POST", "/v1/rerank", { json });
  }

  files() {
    return this.#json("GET", "/v1/files").then(({ data }) => data);
  }

  file(id) {
    return this.#json("GET", at("v1", "files", id));
  }

  fileContent(id) {
    return this.transport.blob("GET", at("v1", "files", id, "content"));
  }

  async createFile(file, { space, signal, onProgress } = {}) {
    const form = new FormData();
    form.append("purpose", "assistants");
    if (space) form.append("space", space);
    form.append("file", file, file.name);
    return this.transport.upload("/v1/files", { form, signal, onProgress });
  }

  deleteFile(id) {
    return this.#json("DELETE", at("v1", "files", id));
  }

  /* health, which needs no token */
  async readiness() {
    const response = await fetch("/readyz", { cache: "no-store", credentials: "omit" });
    return response.json();
  }
}
