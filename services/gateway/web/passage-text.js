/* A stretch of a document's Markdown text, shown readably with one span marked at exact offsets.
 *
 * The box counts offsets in characters (code points), JavaScript in UTF-16 units; they differ after the first emoji,
 * so every offset is converted here and nowhere else. Text stays text: same rule as render.js. */

import { h } from "./dom.js";
import { isDelimiter, splitCells } from "./render.js";

const HEADING = /^(#{1,6})\s+/;
const ITEM = /^(\s*)([-*+]|\d+[.)])\s+/;

/** UTF-16 index of the code point at `offset` (clamped). */
export function unitIndex(text, offset) {
  let units = 0;
  for (let left = offset; left > 0 && units < text.length; left -= 1) units += text.codePointAt(units) > 0xffff ? 2 : 1;
  return units;
}

export const codePointLength = (text) => Array.from(text).length;

/** Fill `container`; returns the first marked element or null. `window`: `{text, start, pages}` as the API gives it;
 * `mark`: `{start, end}` in the document's characters or null;
 * `nameOf(page)`: what a page is called. */
export function showPassage(container, window, mark, nameOf) {
  const unit = (offset) => unitIndex(window.text, Math.max(0, offset - window.start));
  const span = mark ? { from: unit(mark.start), to: unit(mark.end) } : { from: 0, to: 0 };
  const pages = (window.pages || [])
    .filter(({ start }) => start >= window.start)
    .map(({ page, start }) => ({ page, at: unit(start) }));
  container.replaceChildren();
  for (const group of groupLines(window.text)) {
    while (pages.length && pages[0].at <= group.lines[0].from) {
      const { page } = pages.shift();
      container.append(h("p", { class: "page-label" }, () => nameOf(page)));
    }
    container.append(groupNode(window.text, group, span));
  }
  return container.querySelector("mark");
}

function groupLines(text) {
  const groups = [];
  let from = 0;
  for (const line of text.split("\n")) {
    const to = from + line.length;
    const kind = lineKind(line);
    const last = groups.at(-1);
    if (kind === "blank") groups.push({ kind, lines: [] });
    else if (last?.kind === kind && (kind === "table" || kind === "paragraph")) last.lines.push({ from, to });
    else groups.push({ kind, lines: [{ from, to }] });
    from = to + 1;
  }
  return groups.filter(({ kind }) => kind !== "blank");
}

function lineKind(line) {
  if (!line.trim()) return "blank";
  if (HEADING.test(line)) return "heading";
  if (/^\s*\|/.test(line)) return "table";
  if (ITEM.test(line)) return "item";
  return "paragraph";
}

function groupNode(text, { kind, lines }, span) {
  const [{ from, to }] = lines;
  const first = text.slice(from, to);
  if (kind === "table") return tableNode(text, lines, span);
  if (kind === "heading") {
    const [marks, { length: level }] = HEADING.exec(first);
    return h("p", { class: `doc-heading doc-heading-${level}` }, pieces(text, from + marks.length, to, span));
  }
  if (kind === "item") {
    const [whole, { length: indent }, marker] = ITEM.exec(first);
    const bullet = /\d/.test(marker) ? marker : "•";
    return h("p", { class: `doc-item doc-item-${Math.min(3, Math.floor(indent / 2))}` },
      h("span", { class: "doc-bullet" }, `${bullet} `), pieces(text, from + whole.length, to, span));
  }
  return h("p", { class: "doc-paragraph" }, pieces(text, from, lines.at(-1).to, span));
}

function tableNode(text, lines, span) {
  const rows = lines.filter(({ from, to }) => !isDelimiter(text.slice(from, to)));
  const headed = lines.length > 1 && isDelimiter(text.slice(lines[1].from, lines[1].to));
  const body = rows.map(({ from, to }, place) => {
    const tag = headed && place === 0 ? "th" : "td";
    let at = from;
    const cells = splitCells(text.slice(from, to)).map((cell) => {
      const found = cell ? text.indexOf(cell, at) : -1;
      if (found < 0 || found + cell.length > to) return h(tag, {}, cell);
      at = found + cell.length;
      return h(tag, {}, pieces(text, found, at, span));
    });
    return h("tr", {}, cells);
  });
  return h("div", { class: "table-frame", tabindex: "0" }, h("table", {}, body));
}

/** text[from:to] as strings, with the part inside `span` in a <mark>. */
function pieces(text, from, to, span) {
  const start = Math.min(Math.max(from, span.from), to);
  const end = Math.max(Math.min(to, span.to), start);
  if (start === end) return [text.slice(from, to)];
  return [text.slice(from, start), h("mark", {}, text.slice(start, end)), text.slice(end, to)];
}
