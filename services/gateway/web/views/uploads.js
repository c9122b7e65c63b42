/* Files on their way into a space: sending (progress of the line), then reading (progress of the box), then done.
 *
 * A file is its own request, two at a time. Following the box holds a connection a document, and a browser has six for
 * one origin, so at most three are followed at a time; the others wait their turn. */

import { NetworkError, SessionExpired, isAbort } from "../api.js";
import { announce, h, iconButton, replace } from "../dom.js";
import { formatBytes, t } from "../i18n.js";
import { errorNotice } from "./dialogs.js";

const SENDING = 2;
const FOLLOWING = 3;
const FINAL = new Set(["ready", "failed"]);

/** `onChange()` runs when a document appeared or reached its end. */
export function uploadQueue({ client, library, connection, onChange }) {
  const list = h("ul", { class: "uploads", "aria-label": () => t("uploads.label") });
  const sendSlot = slots(SENDING);
  const followSlot = slots(FOLLOWING);

  function add(files, space) {
    for (const file of files) start(file, space);
  }

  async function start(file, space) {
    const row = uploadRow(file, library.titleOf(space), () => cancel.abort());
    const cancel = new AbortController();
    list.append(row.element);
    try {
      const document = await sendSlot(() => send(file, space, row, cancel.signal));
      onChange();
      if (document) await followSlot(() => follow(document, row));
    } catch (error) {
      if (isAbort(error)) row.element.remove();
      else row.fail(error);
    }
    onChange();
  }

  async function send(file, space, row, signal) {
    if (signal.aborted) throw new DOMException("cancelled", "AbortError");
    row.sending(0);
    const result = await client.uploadDocument(space, file, { signal, onProgress: row.sending }).catch(explain);
    row.sent();
    if (result.outcome === "refused") throw result.error;
    if (result.outcome === "unchanged") {
      row.done(() => t("uploads.unchanged"));
      return null;
    }
    return result.document;
  }

  /** A box that cuts the line on purpose (too large) looks like a lost network; asking it tells the two apart. */
  async function explain(error) {
    if (!(error instanceof NetworkError)) throw error;
    throw (await connection.probe()) ? { code: "upload_cut", message: error.message } : error;
  }

  async function follow(document, row) {
    row.reading(document);
    let { status } = document;
    try {
      for await (const progress of client.documentProgress(document.id)) {
        status = progress.status;
        row.reading(progress);
        /* the box may go on telling how many passages are embedded; the document can be asked already */
        if (FINAL.has(status)) break;
      }
    } catch (error) {
      if (error instanceof SessionExpired) throw error;
    }
    const final = await settled(document.id, status, row);
    if (final.status === "failed") throw final.error || { code: "internal" };
    row.done(() => doneText(final));
  }

  /** The stream may have ended early (restart, network): then ask until the document reached its end. */
  async function settled(id, status, row) {
    for (let wait = FINAL.has(status) ? 0 : 500; ; wait = Math.min(5_000, Math.max(500, wait * 2))) {
      await pause(wait);
      try {
        const document = await client.document(id);
        if (FINAL.has(document.status)) return document;
        row.reading(document);
      } catch (error) {
        if (!(error instanceof NetworkError)) throw error;
      }
    }
  }

  return { element: list, add, clear: () => list.replaceChildren() };
}

function doneText({ pages, warnings }) {
  const read = pages ? t("uploads.ready.pages", { count: pages }) : t("uploads.ready");
  return warnings?.length ? `${read} ${t("documents.warnings", { count: warnings.length })}` : read;
}

function uploadRow(file, spaceTitle, onCancel) {
  const bar = h("progress", { max: "1", "aria-label": file.name });
  const status = h("div", { class: "upload-status" }, () => t("uploads.waiting"));
  const corner = h("span", { class: "upload-corner" },
    iconButton("close", () => t("uploads.cancel", { name: file.name }), onCancel, { class: "small" }));
  const element = h("li", { class: "upload" },
    h("div", { class: "upload-head" }, h("span", { class: "upload-name" }, file.name),
      h("span", { class: "upload-size" }, () => `${formatBytes(file.size)} · ${spaceTitle}`), corner),
    bar, status);
  bar.value = 0;

  function end(kind, content) {
    bar.remove();
    element.classList.add(kind);
    replace(corner, iconButton("close", () => t("uploads.dismiss", { name: file.name }), () => element.remove(), { class: "small" }));
    replace(status, content);
    announce(`${file.name}: ${status.textContent}`);
  }
  return {
    element,
    sending(part) {
      bar.value = part;
      replace(status, () => t("uploads.sending", { percent: Math.round(part * 100) }));
    },
    sent: () => corner.replaceChildren(),
    reading({ status: state, pages_done: done, pages }) {
      const counted = pages && Number.isInteger(done);
      if (counted) bar.value = done / pages;
      else bar.removeAttribute("value");
      replace(status, () => (counted ? t("uploads.reading.pages", { done, pages }) : t(`documents.status.${state}`)));
    },
    done: (text) => end("done", text),
    fail: (error) => end("failed", errorNotice(error)),
  };
}

/** At most `count` pieces of work at a time, the others in order. */
function slots(count) {
  const waiting = [];
  let busy = 0;
  return async (work) => {
    if (busy >= count) await new Promise((resolve) => waiting.push(resolve));
    else busy += 1;
    try {
      return await work();
    } finally {
      if (waiting.length) waiting.shift()();
      else busy -= 1;
    }
  };
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
