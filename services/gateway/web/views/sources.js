/* The side panel: one cited passage, marked inside the text of its document.
 *
 * The document may have been replaced or deleted since the answer was given. Then the panel says so and shows what was
 * quoted; it never marks a span that does not hold the quoted words. */

import { isAbort } from "../api.js";
import { announce, h, icon, iconButton, replace, saveBlob } from "../dom.js";
import { pageName, t } from "../i18n.js";
import { codePointLength, showPassage, unitIndex } from "../passage-text.js";
import { errorNotice, toast } from "./dialogs.js";

const BEFORE = 1_500;
const AFTER = 2_500;
const MORE = 6_000;

/** `onToggle(open)` lets the page make room. */
export function sourcePanel({ client, library, onToggle }) {
  const title = h("h2", { id: "source-title", tabindex: "-1" });
  const place = h("p", { class: "source-place" });
  const body = h("div", { class: "passage", tabindex: "0", role: "region", "aria-label": () => t("sources.text") });
  const position = h("span", { class: "source-position" });
  const previous = iconButton("previous", () => t("sources.previous"), () => move(-1));
  const next = iconButton("next", () => t("sources.next"), () => move(1));
  const download = h("button", { type: "button", class: "button small", onclick: () => save() }, icon("download"),
    () => t("sources.download"));
  const element = h("aside", { class: "panel", "aria-labelledby": "source-title", hidden: true },
    h("header", { class: "panel-head" },
      h("div", { class: "panel-bar" }, previous, position, next, h("span", { class: "spring" }),
        iconButton("close", () => t("sources.close"), () => close())),
      title, place),
    body,
    h("footer", { class: "panel-foot" }, download));
  let all = [];
  let current = null;
  let opener = null;
  let loading = null;
  let range = { start: 0, end: 0 };

  function open(citation, citations, button) {
    all = citations;
    opener = button;
    element.hidden = false;
    onToggle(true);
    show(citation);
    title.focus({ preventScroll: true });
  }

  function close() {
    if (element.hidden) return;
    loading?.abort();
    element.hidden = true;
    current = null;
    onToggle(false);
    if (opener?.isConnected) opener.focus();
  }

  function move(by) {
    const citation = all[all.indexOf(current) + by];
    if (!citation) return;
    show(citation);
    announce(t("sources.name", { index: citation.index, filename: citation.filename }));
  }

  function show(citation) {
    current = citation;
    const at = all.indexOf(citation);
    replace(title, h("span", { class: "source-number" }, String(citation.index)), " ", citation.filename);
    replace(place, placeParts(citation, library));
    replace(position, () => t("sources.position", { at: at + 1, count: all.length }));
    for (const [button, blocked] of [[previous, at <= 0], [next, at >= all.length - 1]]) {
      button.setAttribute("aria-disabled", String(blocked));
    }
    range = { start: Math.max(0, citation.start - BEFORE), end: citation.end + AFTER };
    replace(body, h("p", { class: "loading" }, () => t("loading")));
    load(true);
  }

  async function load(scroll) {
    loading?.abort();
    loading = new AbortController();
    const citation = current;
    try {
      const window = await client.documentText(citation.documentId, { ...range, signal: loading.signal });
      if (citation === current) draw(window, citation, scroll);
    } catch (error) {
      if (isAbort(error) || citation !== current) return;
      replace(body, error.status === 404 ? changed("sources.gone") : errorNotice(error), quoteNode(citation));
    }
  }

  function draw(window, citation, scroll) {
    const mark = locate(window, citation);
    const text = h("div", { class: "passage-text" });
    const first = showPassage(text, window, mark, (page) => pageName(citation.filename, page));
    replace(body,
      mark ? null : [changed("sources.changed"), quoteNode(citation)],
      window.start > 0 ? more("sources.earlier", () => widen(-MORE, 0)) : null,
      text,
      window.end < window.length ? more("sources.later", () => widen(0, MORE)) : null);
    range = { start: window.start, end: window.end };
    if (scroll) (first || text).scrollIntoView({ block: first ? "center" : "start" });
    body.scrollLeft = 0;
  }

  async function widen(before, after) {
    const height = body.scrollHeight;
    const { scrollTop } = body;
    range = { start: Math.max(0, range.start + before), end: range.end + after };
    await load(false);
    body.scrollTop = before ? scrollTop + body.scrollHeight - height : scrollTop;
    body.focus({ preventScroll: true });
  }

  async function save() {
    const { documentId, filename } = current;
    try {
      saveBlob(await client.documentOriginal(documentId), filename);
    } catch (error) {
      toast(error);
    }
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  });
  return { element, open, close };
}

const changed = (key) => h("p", { class: "notice" }, () => t(key));
const quoteNode = ({ quote }) => (quote ? h("blockquote", { class: "quote" }, quote) : null);
const more = (key, onclick) => h("button", { type: "button", class: "button quiet small more", onclick }, () => t(key));

function placeParts({ filename, page, headingPath, space }, library) {
  return [
    h("span", {}, library.titleOf(space)),
    page === null ? null : h("span", {}, () => pageName(filename, page)),
    headingPath.length ? h("span", { class: "heading-path" }, headingPath.join(" › ")) : null,
  ];
}

/** Where the quoted words stand in `window`: at the cited offsets, else found again near them, else null. */
function locate(window, { start, end, quote }) {
  const { text } = window;
  const from = unitIndex(text, Math.max(0, start - window.start));
  const to = unitIndex(text, Math.max(0, end - window.start));
  if (!quote || squeeze(text.slice(from, to)) === squeeze(quote)) return { start, end };
  const found = text.indexOf(quote);
  if (found < 0) return null;
  const moved = window.start + codePointLength(text.slice(0, found));
  return { start: moved, end: moved + codePointLength(quote) };
}

const squeeze = (text) => text.replace(/\s+/g, " ").trim();
