/* The conversation: questions and answers of one thread, and the field for the next question. */

import { isAbort } from "../api.js";
import { h, icon, replace } from "../dom.js";
import { t } from "../i18n.js";
import { answerView } from "./answer.js";
import { composer } from "./composer.js";
import { errorNotice } from "./dialogs.js";

const NEAR_BOTTOM_PX = 120;

/** `onCite` opens a source; `onThread(id)` runs when a turn was stored; `onFiles(files)` takes files to upload. */
export function chatView({ client, library, onCite, onThread, onFiles, onAddDocuments }) {
  const heading = h("h1", { class: "view-title", tabindex: "-1" });
  const messages = h("div", { class: "messages" });
  const scroller = h("div", { class: "conversation", tabindex: "0", role: "region", "aria-label": () => t("chat.conversation") },
    messages);
  const field = composer({ library, onSend, onStop: () => running?.abort(), onFiles });
  const element = h("section", { class: "view chat" }, h("header", { class: "view-head" }, heading), scroller, field.element);
  let threadId = null;
  let running = null;
  let loading = null;

  library.addEventListener("change", () => {
    field.allowFiles(library.writable.length > 0);
    if (!messages.querySelector(".message")) drawEmpty();
  });

  function setTitle(title) {
    replace(heading, title || (() => t("chat.new")));
  }

  function drawEmpty() {
    replace(messages, emptyState({ library, onAsk: field.focus, onAddDocuments }));
  }

  /** Runs one turn; resolves as soon as the question left, rejects when it could not. */
  function onSend(text, agent) {
    return new Promise((sent, refused) => {
      const turn = new AbortController();
      const options = { text, spaces: library.selection ?? undefined, threadId: threadId ?? "new", agent };
      let answer = null;
      const begin = () => {
        sent();
        messages.querySelector(".empty")?.remove();
        answer = answerView({ onCite, onRetry: () => again(text, agent), onAgent: (chosen) => again(text, chosen) });
        messages.append(questionNode(text), answer.element);
        answer.start({ searching: options.spaces?.length !== 0 });
        running = turn;
        field.setBusy(true);
        scroller.scrollTop = scroller.scrollHeight;
      };
      follow(options, turn, begin, () => answer).catch((error) => {
        if (answer) answer.fail(error);
        else refused(error);
      }).finally(() => {
        if (running !== turn) return;
        running = null;
        field.setBusy(false);
      });
    });
  }

  async function follow(options, turn, begin, current) {
    for await (const frame of client.chat.ask(options, { signal: turn.signal, onSent: begin })) {
      const stick = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_BOTTOM_PX;
      current().feed(frame);
      if (stick) requestAnimationFrame(() => {
        scroller.scrollTop = scroller.scrollHeight;
      });
      if (frame.type === "done") ended(frame, options, current());
    }
  }

  function ended(frame, options, answer) {
    const still = answer.element.isConnected;
    if (still && frame.thread_id && !threadId) threadId = frame.thread_id;
    onThread(still ? threadId : null, options.text);
  }

  function again(text, agent) {
    if (!running) onSend(text, agent).catch((error) => messages.append(errorNotice(error)));
  }

  /** Show a stored thread, or a new one for null. */
  async function open(id, title) {
    field.clearProblem();
    if (id === threadId && (id !== null || running)) return setTitle(title);
    running?.abort();
    loading?.abort();
    threadId = id;
    setTitle(title);
    if (id === null) {
      drawEmpty();
      return field.focus();
    }
    loading = new AbortController();
    const { signal } = loading;
    replace(messages, h("p", { class: "loading" }, () => t("loading")));
    try {
      const thread = await client.thread(id, { signal });
      draw(thread);
    } catch (error) {
      if (!isAbort(error)) replace(messages, errorNotice(error));
    }
    return undefined;
  }

  function draw(thread) {
    setTitle(thread.title);
    library.select(thread.spaces ?? null);
    replace(messages, thread.messages.map((message) => {
      if (message.role === "user") return questionNode(message.content);
      const answer = answerView({ onCite });
      answer.show(message);
      return answer.element;
    }));
    scroller.scrollTop = scroller.scrollHeight;
    field.focus();
  }

  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) running.abort();
  });

  setTitle("");
  drawEmpty();
  return {
    element,
    open,
    heading,
    setTitle,
    focus: field.focus,
    clearProblem: field.clearProblem,
    get threadId() {
      return threadId;
    },
    reset() {
      running?.abort();
      threadId = null;
      setTitle("");
      drawEmpty();
      field.restore();
    },
  };
}

function questionNode(text) {
  return h("article", { class: "message question" },
    h("h2", { class: "visually-hidden" }, () => t("chat.you")), h("p", {}, text));
}

function emptyState({ library, onAsk, onAddDocuments }) {
  const full = library.documents > 0;
  const canAdd = library.writable.length > 0;
  const card = (image, title, text, action, onclick, primary) =>
    h("div", { class: "card" }, h("span", { class: "card-icon" }, icon(image)), h("h3", {}, title), h("p", {}, text),
      h("button", { type: "button", class: `button ${primary ? "primary" : ""}`.trim(), onclick }, action));
  const ask = card("chat", () => t("empty.ask.title"), () => t("empty.ask.text"), () => t("empty.ask.action"), onAsk, full);
  const add = card("upload", () => t("empty.add.title"), () => t("empty.add.text"), () => t("empty.add.action"),
    onAddDocuments, !full);
  return h("div", { class: "empty" },
    h("h2", {}, () => t(full ? "empty.title" : "empty.title.bare")),
    h("p", { class: "empty-lead" }, () => lead(library, full, canAdd)),
    h("div", { class: "cards" }, full ? [ask, canAdd ? add : null] : [canAdd ? add : null, ask]));
}

function lead(library, full, canAdd) {
  if (!full) return t(canAdd ? "empty.lead.bare" : "empty.lead.reader");
  return t("empty.lead", {
    documents: t("spaces.documents", { count: library.documents }),
    spaces: t("spaces.count", { count: library.spaces.length }),
  });
}
