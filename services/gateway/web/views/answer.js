/* One answer: its steps, its text as it comes, its sources, what can be done with it. */

import { citationFrom, citationMap } from "../citations.js";
import { announce, h, icon, replace } from "../dom.js";
import { known, pageName, t } from "../i18n.js";
import { renderAnswer } from "../render.js";
import { errorNotice } from "./dialogs.js";

const SPOKEN_LIMIT = 700;
const MOST_WAYS = 8;
/** Who answers when nobody else was chosen: not worth a word. */
const DOCUMENTS = "documents";

/** An empty answer to be fed with frames, or filled at once with `show()`. `onCite(citation, all, opener)`; `onAgent(name)`
 * runs when the box asked which way to go and a person chose. */
export function answerView({ onCite, onRetry, onAgent }) {
  const steps = h("ul", { class: "steps" });
  const content = h("div", { class: "prose" });
  const after = h("div", { class: "answer-after" });
  const element = h("article", { class: "message answer" },
    h("h2", { class: "visually-hidden" }, () => t("chat.answer")), steps, content, after);
  const stepRows = new Map();
  let citations = new Map();
  let ways = [];
  let searched = false;
  let text = "";
  let frame = 0;
  let running = false;

  const cite = (index) => {
    const citation = citations.get(index);
    return citation ? citationButton(citation, ({ currentTarget }) => onCite(citation, ordered(), currentTarget)) : null;
  };
  const ordered = () => [...citations.values()];

  function draw() {
    cancelAnimationFrame(frame);
    frame = 0;
    renderAnswer(content, text, { cite, known: [...citations.keys()].join() });
    element.classList.toggle("streaming", running);
  }

  /** At most one drawing a picture frame, however fast tokens come. */
  function drawSoon() {
    frame ||= requestAnimationFrame(draw);
  }

  function step({ name, detail }) {
    if (name === "ask") ways = Array.isArray(detail?.options) ? detail.options.slice(0, MOST_WAYS) : [];
    if (name === "ask" || name === "route") return; // the buttons say it, and the line below the answer
    const label = () => stepText(name, detail);
    for (const row of stepRows.values()) row.classList.add("finished");
    searched ||= name === "search" && detail !== null;
    const key = name === "tool" ? `tool ${detail?.round} ${detail?.name}` : name;
    const row = stepRows.get(key) || h("li", { class: "step" });
    stepRows.set(key, row);
    row.classList.toggle("finished", countOf(detail) !== null || name === "tool");
    replace(row, icon("check"), h("span", {}, label));
    steps.append(row);
    announce(label());
    if (detail?.degraded?.length) steps.append(h("li", { class: "step finished" }, icon("alert"), h("span", {}, () => t("step.degraded"))));
  }

  function settle() {
    running = false;
    draw();
    for (const row of stepRows.values()) row.classList.add("finished");
    element.removeAttribute("aria-busy");
  }

  /** The search was only supposed: the answer came without one. */
  function dropSupposedSearch() {
    const row = stepRows.get("search");
    if (row && !searched) row.remove();
  }

  function close({ refused = false, cancelled = false, agent = "" } = {}) {
    settle();
    if (!cancelled) dropSupposedSearch();
    const used = ordered();
    replace(after,
      refused ? note(() => t("chat.refused")) : null,
      cancelled ? note(() => t("chat.stopped")) : null,
      ways.length && !cancelled ? wayButtons(ways, onAgent) : null,
      used.length ? sourceList(used, onCite) : null,
      agent && agent !== DOCUMENTS ? h("p", { class: "answer-by" }, () => t("chat.agent", { agent })) : null,
      text ? actions(() => text, onRetry) : null);
    announce(spoken(text, used.length, { refused, cancelled }));
  }

  return {
    element,
    start({ searching }) {
      running = true;
      if (searching) step({ name: "search", detail: null });
      element.setAttribute("aria-busy", "true");
      element.classList.add("streaming");
    },
    feed(message) {
      if (message.type === "step") step(message);
      if (message.type === "token") {
        text += message.text;
        drawSoon();
      }
      if (message.type === "citation") {
        const citation = citationFrom(message);
        if (citation && !citations.has(citation.index)) {
          citations = new Map([...citations, [citation.index, citation]].sort(([left], [right]) => left - right));
          drawSoon();
        }
      }
      if (message.type === "done") {
        close({ refused: message.refused, cancelled: message.finish_reason === "cancelled", agent: message.agent });
      }
    },
    fail(error) {
      settle();
      const retry = h("button", { type: "button", class: "button small", onclick: onRetry }, icon("retry"),
        () => t("chat.retry"));
      replace(after, errorNotice(error, retry));
      announce(t("chat.failed"));
    },
    /** A stored answer, without a word to the screen reader. */
    show(message) {
      text = message.content || "";
      citations = citationMap(message.citations);
      draw();
      replace(after, citations.size ? sourceList(ordered(), onCite) : null, actions(() => text, null));
    },
  };
}

function citationButton(citation, onclick) {
  return h("button", {
    type: "button", class: "citation", onclick, "aria-label": () => sourceName(citation), title: () => sourceName(citation),
  }, String(citation.index));
}

function sourceName({ index, filename, page }) {
  const name = t("sources.name", { index, filename });
  return page === null ? name : `${name}, ${pageName(filename, page)}`;
}

function sourceList(citations, onCite) {
  const row = (citation) =>
    h("li", {},
      h("button", {
        type: "button", class: "source", onclick: ({ currentTarget }) => onCite(citation, citations, currentTarget),
      },
      h("span", { class: "source-number", "aria-hidden": "true" }, String(citation.index)),
      h("span", { class: "visually-hidden" }, () => `${t("sources.number", { index: citation.index })} `),
      h("span", { class: "source-file" }, citation.filename),
      citation.page === null ? null : h("span", { class: "source-page" }, () => pageName(citation.filename, citation.page))),
      h("blockquote", { class: "print-only" }, citation.quote));
  return h("section", { class: "sources-used" },
    h("h3", {}, () => t("sources.heading")), h("ul", {}, citations.map(row)));
}

/** The ways that the box offers when it does not know which; each asks the question again. */
function wayButtons(ways, onAgent) {
  const button = ({ agent, title }) =>
    h("button", { type: "button", class: "button small", onclick: () => onAgent?.(String(agent)) }, String(title));
  return h("div", { class: "ways", role: "group", "aria-label": () => t("chat.ways") }, ways.map(button));
}

function actions(textOf, onRetry) {
  const label = h("span", {}, () => t("chat.copy"));
  const copy = async () => {
    await copyText(textOf());
    replace(label, () => t("chat.copied"));
    announce(t("chat.copied"));
    setTimeout(() => replace(label, () => t("chat.copy")), 2_000);
  };
  return h("div", { class: "answer-actions" },
    h("button", { type: "button", class: "button quiet small", onclick: copy }, icon("copy"), label),
    onRetry ? h("button", { type: "button", class: "button quiet small", onclick: onRetry }, icon("retry"),
      () => t("chat.again")) : null);
}

/** The clipboard API exists on https and localhost only; a box may be reached by http on its address. */
async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text).catch(() => {});
    return;
  }
  const field = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
}

const note = (text) => h("p", { class: "notice" }, text);

const countOf = (detail) => (Number.isInteger(detail?.passages) ? detail.passages : null);

/** `search {passages: 5}` → “Searched the documents: 5 passages”; an unknown step keeps the box's own name. */
function stepText(name, detail) {
  const count = countOf(detail);
  if (count !== null && known(`step.${name}.count`)) return t(`step.${name}.count`, { count });
  if (name === "tool" && detail?.code) return t("step.tool.failed", { name: String(detail.name) });
  if (known(`step.${name}`)) return t(`step.${name}`, { name: String(detail?.name ?? ""), model: String(detail?.model ?? "") });
  return typeof detail === "string" && detail ? `${name}: ${detail}` : String(name);
}

/** What a screen reader hears when the answer is complete: the answer once, without its marks, and the sources. */
function spoken(text, sources, { refused, cancelled }) {
  const plain = text.replace(/\[\d+(?:,\s*\d+)*\]/g, "").replace(/[*_`#|>]+/g, " ").replace(/\s+/g, " ").trim();
  const short = plain.length > SPOKEN_LIMIT ? `${plain.slice(0, SPOKEN_LIMIT)}…` : plain;
  const opening = cancelled ? t("chat.stopped") : refused ? t("chat.refused") : t("chat.complete");
  return [opening, short, sources ? t("sources.count", { count: sources }) : ""].filter(Boolean).join(" ");
}
