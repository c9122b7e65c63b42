/* Answers on the page without trusting them: a small Markdown becomes elements made one by one, text only as text.
 *
 * Invariants: nothing is parsed as HTML; no element with an address is ever made (a link or image shows its text and
 * its address as words); `[n]` becomes a button only when a citation n exists; work is bounded for hostile input. */

import { h } from "./dom.js";

const MAX_SPAN = 600;
const MAX_DEPTH = 6;
const MAX_LENGTH = 200_000;
const rendered = new WeakMap();

/** Show `text` in `container`. `cite(n)` makes the node for `[n]` or returns null; `known` says which n it knows, so that
 * blocks which did not change since the last call keep their nodes, and with them focus and selection. */
export function renderAnswer(container, text, { cite = () => null, known = "" } = {}) {
  const before = rendered.get(container) || [];
  const blocks = splitBlocks(text.slice(0, MAX_LENGTH));
  const top = Math.min(...blocks.filter(({ kind }) => kind === "heading").map(({ lines }) => HEADING.exec(lines[0])[1].length));
  const now = blocks.map((block, position) => {
    const key = `${known}|${block.kind}|${block.kind === "heading" ? top : ""}|${block.lines.join("\n")}`;
    const old = before[position];
    return old?.key === key ? old : { key, node: blockNode(block, cite, top) };
  });
  now.forEach((item, position) => {
    const present = container.childNodes[position];
    if (present === item.node) return;
    if (present) present.replaceWith(item.node);
    else container.append(item.node);
  });
  while (container.childNodes.length > now.length) container.lastChild.remove();
  rendered.set(container, now);
}

/* -- blocks ----------------------------------------------------------------------------------------------------- */

const FENCE = /^\s{0,3}(```|~~~)/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*)$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;

const isTable = (lines, at) =>
  lines[at].includes("|") && lines[at + 1]?.includes("|") && isDelimiter(lines[at + 1]);

/** The line of dashes under the head of a table; one character class, so that no input makes the pattern backtrack. */
export const isDelimiter = (line) => line.includes("-") && /^[\s:|-]+$/.test(line);

function splitBlocks(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const blocks = [];
  let at = 0;
  const take = (kind, belongs) => {
    const from = at;
    at += 1;
    while (at < lines.length && belongs(lines[at], at)) at += 1;
    blocks.push({ kind, lines: lines.slice(from, at) });
  };
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) at += 1;
    else if (FENCE.test(line)) takeFence();
    else if (HEADING.test(line)) take("heading", () => false);
    else if (RULE.test(line)) take("rule", () => false);
    else if (isTable(lines, at)) take("table", (next) => next.includes("|"));
    else if (QUOTE.test(line)) take("quote", (next) => QUOTE.test(next));
    else if (ITEM.test(line)) take("list", (next) => ITEM.test(next) || /^\s+\S/.test(next));
    else take("paragraph", (next, place) => next.trim() && !startsBlock(next) && !isTable(lines, place));
  }
  return blocks;

  function takeFence() {
    const mark = FENCE.exec(lines[at])[1];
    let end = at + 1;
    while (end < lines.length && !lines[end].trim().startsWith(mark)) end += 1;
    blocks.push({ kind: "code", lines: lines.slice(at + 1, end) });
    at = end + 1;
  }
}

const startsBlock = (line) =>
  FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

/** `top`: the highest heading of the answer, which becomes an <h3> under the <h2> of the message. */
function blockNode({ kind, lines }, cite, top) {
  switch (kind) {
    case "code":
      return h("pre", { tabindex: "0" }, h("code", {}, lines.join("\n")));
    case "rule":
      return h("hr");
    case "heading": {
      const [, marks, title] = HEADING.exec(lines[0]);
      return h(`h${Math.min(marks.length - top + 3, 6)}`, {}, inline(title.replace(/\s#+\s*$/, ""), cite));
    }
    case "quote":
      return h("blockquote", {}, lineNodes(lines.map((line) => QUOTE.exec(line)[1]), cite));
    case "table":
      return tableNode(lines, cite);
    case "list":
      return listNode(lines, cite);
    default:
      return h("p", {}, lineNodes(lines, cite));
  }
}

const lineNodes = (lines, cite) =>
  lines.flatMap((line, place) => [place ? h("br") : null, ...inline(line.trim(), cite)]).filter(Boolean);

function tableNode(lines, cite) {
  const row = (line, tag) =>
    h("tr", {}, splitCells(line).map((cell) => h(tag, tag === "th" ? { scope: "col" } : {}, inline(cell, cite))));
  const [head, , ...body] = lines;
  return h("div", { class: "table-frame", tabindex: "0" },
    h("table", {}, h("thead", {}, row(head, "th")), h("tbody", {}, body.map((line) => row(line, "td")))));
}

/** Cells of a table line; `\|` is a bar inside a cell. */
export function splitCells(line) {
  const cells = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/);
  return cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** Nested by indentation; a line that is no item continues the one above. */
function listNode(lines, cite) {
  let root = null;
  const open = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (!item) {
      open.at(-1)?.list.lastChild.append(h("br"), ...inline(line.trim(), cite));
      continue;
    }
    const [, { length: indent }, marker, text] = item;
    while (open.length > 1 && indent <= open.at(-2).indent + 1 && indent < open.at(-1).indent) open.pop();
    if (!open.length || (indent > open.at(-1).indent + 1 && open.length < MAX_DEPTH)) {
      const list = /\d/.test(marker) ? h("ol", { start: Number.parseInt(marker, 10) }) : h("ul");
      if (open.length) open.at(-1).list.lastChild.append(list);
      else root = list;
      open.push({ indent, list });
    }
    open.at(-1).list.append(h("li", {}, inline(text, cite)));
  }
  return root;
}

/* -- inline ----------------------------------------------------------------------------------------------------- */

const ESCAPABLE = /[\\`*_{}[\]()#+\-.!|~>]/;
const CITATION = /^\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]/;
const ADDRESS = /^(!?)\[([^\][\n]{0,500})\]\(([^()\s]{0,2000})(?:\s+"[^"\n]{0,500}")?\)/;
const EMPHASIS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

/** Nodes and strings for one line of text. */
function inline(text, cite, depth = 0) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(plain);
    plain = "";
  };
  const put = (node, length) => {
    /* a citation stays on the line of the words it belongs to */
    if (Array.isArray(node)) plain = plain.replace(/ $/, "\u00a0");
    flush();
    nodes.push(node);
    at += length;
  };
  let at = 0;
  while (at < text.length) {
    const char = text[at];
    const found =
      char === "`" ? codeSpan(text, at)
      : char === "[" || char === "!" ? bracket(text, at, cite)
      : "*_~".includes(char) && depth < MAX_DEPTH ? emphasis(text, at, cite, depth)
      : null;
    if (found) put(...found);
    else if (char === "\\" && ESCAPABLE.test(text[at + 1] || "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      plain += char;
      at += 1;
    }
  }
  flush();
  return nodes.flat();
}

function codeSpan(text, at) {
  const marks = /^`+/.exec(text.slice(at, at + 10))[0];
  const end = indexWithin(text, marks, at + marks.length);
  if (end < 0) return null;
  return [h("code", {}, text.slice(at + marks.length, end).trim()), end + marks.length - at];
}

function bracket(text, at, cite) {
  const ahead = text.slice(at, at + 3_100);
  const numbers = CITATION.exec(ahead);
  if (numbers) {
    const made = numbers[1].split(",").map((number) => cite(Number(number)));
    return made.every(Boolean) ? [made, numbers[0].length] : null;
  }
  const address = ADDRESS.exec(ahead);
  if (!address) return null;
  const [whole, , words, target] = address;
  return [words && words !== target ? `${words} (${target})` : target, whole.length];
}

function emphasis(text, at, cite, depth) {
  const rule = EMPHASIS.find(([mark]) => text.startsWith(mark, at));
  if (!rule) return null;
  const [mark, tag] = rule;
  const from = at + mark.length;
  if (!text[from] || /\s/.test(text[from])) return null;
  if (mark[0] === "_" && isWord(text[at - 1])) return null;
  let end = indexWithin(text, mark, from + 1);
  while (end > 0 && (/\s/.test(text[end - 1]) || (mark[0] === "_" && isWord(text[end + mark.length])))) {
    end = indexWithin(text, mark, end + 1, from);
  }
  if (end < 0) return null;
  /* `**bold*` + `*`: the longer closing mark belongs to the outer one */
  if (mark.length === 1 && text[end + 1] === mark && text[end + 2] !== mark) return null;
  return [h(tag, {}, inline(text.slice(from, end), cite, depth + 1)), end + mark.length - at];
}

const isWord = (char) => char !== undefined && /[\p{L}\p{N}]/u.test(char);

function indexWithin(text, mark, from, origin = from) {
  const end = text.slice(from, origin + MAX_SPAN).indexOf(mark);
  return end < 0 ? -1 : from + end;
}
