/* Building elements without ever parsing markup, so Trusted Types can be required with no policy allowed. */

import { bind } from "./i18n.js";

/** An element. `properties`: `class`, `on…` listeners, booleans, attributes; a function as the value of an attribute or
 * as a child is a localised string and follows the language. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "function") bind(element, name, value);
    else element.setAttribute(name === "class" ? "class" : name, value === true ? "" : String(value));
  }
  const texts = children.filter((child) => typeof child === "function");
  if (texts.length === 1 && children.length === 1) {
    bind(element, null, texts[0]);
    return element;
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(typeof child === "function" ? h("span", {}, child) : child);
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  folder: "M4 6.5h5.5l2 2H20v9.5H4z",
  file: "M6 3.5h8l4 4v13H6zM14 3.5v4h4",
  upload: "M12 15V4M7.5 8.5L12 4l4.5 4.5M4.5 15.5v4h15v-4",
  download: "M12 4v11M7.5 10.5L12 15l4.5-4.5M4.5 15.5v4h15v-4",
  trash: "M5 7h14M9.5 7V4.5h5V7M7 7l.8 12.5h8.4L17 7M10.5 10.5v5.5M13.5 10.5v5.5",
  pencil: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  chat: "M4.5 5h15v11H11l-4 3.5V16H4.5z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  chevron: "M7 10l5 5 5-5",
  previous: "M14 7l-5 5 5 5",
  next: "M10 7l5 5-5 5",
  alert: "M12 4l9 16H3zM12 10v4.5M12 17.3v.2",
  search: "M10.5 5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM15 15l4.5 4.5",
  copy: "M9 8.5h10.5V20H9zM15 8.5V4.5H4.5V16H9",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19.5 4v4h-4",
  exit: "M10 5H5v14h5M14 8l4 4-4 4M18 12H9",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6l1.5 1.5M16.9 16.9l1.5 1.5M5.6 18.4l1.5-1.5M16.9 7.1l1.5-1.5",
  moon: "M19 14.5A7.5 7.5 0 0 1 9.5 5 7.5 7.5 0 1 0 19 14.5z",
  auto: "M4 5.5h16v10.5H4zM9 19.5h6M12 16v3.5",
  shield: "M12 3.5l7 2.5v5.5c0 4.3-2.9 7.4-7 9-4.1-1.6-7-4.7-7-9V6z",
};

/** A decorative line icon; the element around it carries the name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows only an icon; its name is both label and tooltip. */
export function iconButton(name, label, onclick, properties = {}) {
  const { class: extra = "", ...rest } = properties;
  return h("button", {
    type: "button", class: `icon-button ${extra}`.trim(), "aria-label": label, title: label, onclick, ...rest,
  }, icon(name));
}

let lastId = 0;
export const uniqueId = (prefix) => `${prefix}-${(lastId += 1)}`;

/** Hand a blob to the browser's downloads: a plain link could not carry the Authorization header. */
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const polite = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite", "aria-atomic": "true" });

/** Say something to a screen reader, once. The page has exactly one such region; tokens never pass through it. */
export function announce(text) {
  if (!polite.isConnected) document.body.append(polite);
  polite.textContent = "";
  requestAnimationFrame(() => {
    polite.textContent = text;
  });
}
