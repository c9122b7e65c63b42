/* Every visible string, in the language of the reader: catalogues, plural forms, dates, sizes, errors.
 *
 * Elements are bound to a function that yields their text, so switching the language re-runs those functions in place:
 * nothing is rebuilt, a streaming answer goes on and the focus stays where it was. */

import { recall, remember } from "./preferences.js";

export const LOCALES = ["en", "ru"];
export const LOCALE_NAMES = { en: "English", ru: "Русский" };

const catalogues = new Map();
const bindings = new WeakMap();
const changed = new EventTarget();
let current = document.documentElement.lang || "en";

export const locale = () => current;

/** Load a catalogue, switch to it, re-run every binding on the page. */
export async function setLocale(name) {
  const next = LOCALES.includes(name) ? name : "en";
  if (!catalogues.has(next)) {
    const response = await fetch(`/web/locales/${next}.json`);
    if (!response.ok) throw new Error(`catalogue ${next}: HTTP ${response.status}`);
    catalogues.set(next, await response.json());
  }
  current = next;
  document.documentElement.lang = next;
  translate(document);
  changed.dispatchEvent(new Event("change"));
}

/** The reader's own choice, kept for the next visit. */
export async function chooseLocale(name) {
  await setLocale(name);
  remember("locale", name);
}

export function onLocaleChange(listener) {
  changed.addEventListener("change", listener);
}

/** Language for a first visit: the stored choice, else the first language of the browser that we speak. */
export function preferredLocale() {
  const wanted = [recall("locale"), ...(navigator.languages || [navigator.language])];
  for (const tag of wanted) {
    const short = String(tag || "").slice(0, 2).toLowerCase();
    if (LOCALES.includes(short)) return short;
  }
  return "en";
}

const lookUp = (key) => (catalogues.get(current) || {})[key];

export const known = (key) => lookUp(key) !== undefined;

/** The string for `key`; `{name}` is replaced from `values`; an entry with plural forms is chosen by `values.count`. */
export function t(key, values = {}) {
  let entry = lookUp(key);
  if (entry === undefined) return key;
  if (typeof entry === "object") {
    entry = entry[new Intl.PluralRules(current).select(values.count)] ?? entry.other;
  }
  return entry.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (value === undefined || value === null) return whole;
    return typeof value === "number" ? formatNumber(value) : String(value);
  });
}

/** Bind what `make()` yields to an element: its text (`attribute` null) or one attribute. */
export function bind(element, attribute, make) {
  const list = bindings.get(element) || [];
  list.push([attribute, make]);
  bindings.set(element, list);
  element.setAttribute("data-l10n", "");
  run(element, attribute, make);
}

function run(element, attribute, make) {
  const value = make();
  if (attribute === null) element.textContent = value;
  else if (value === null || value === undefined) element.removeAttribute(attribute);
  else element.setAttribute(attribute, value);
}

function translate(root) {
  for (const element of root.querySelectorAll("[data-l10n]")) {
    for (const [attribute, make] of bindings.get(element) || []) run(element, attribute, make);
  }
}

export const formatNumber = (value) => new Intl.NumberFormat(current).format(value);

export function formatBytes(size) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 ? 1 : 0;
  return new Intl.NumberFormat(current, {
    style: "unit", unit: units[unit], unitDisplay: unit === 0 ? "long" : "short", maximumFractionDigits: digits,
  }).format(value);
}

export function formatDate(moment) {
  const date = toDate(moment);
  if (!date) return "";
  const sameYear = date.getFullYear() === new Date().getFullYear();
  return new Intl.DateTimeFormat(current, {
    day: "numeric", month: "short", ...(sameYear ? {} : { year: "numeric" }), hour: "2-digit", minute: "2-digit",
  }).format(date);
}

/** Moments arrive as ISO 8601 or as seconds since 1970. */
export function toDate(moment) {
  if (moment === null || moment === undefined) return null;
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** “Page 3”; slides and sheets are what pages are called in presentations and workbooks. */
export function pageName(filename, page) {
  const kind = /\.(pptx?|odp)$/i.test(filename) ? "slide" : /\.(xlsx?|ods|csv)$/i.test(filename) ? "sheet" : "page";
  return t(`sources.${kind}`, { page: String(page) });
}

/** `{message, hint, detail}` for a thrown ApiError or an `error` object of the API.
 *
 * A code that the catalogue knows speaks the reader's language; the server's own sentence (it names the file, the
 * limit) is then kept as detail. An unknown code shows the server's text. */
export function describeError(error) {
  const code = error?.code || "internal";
  const message = error?.message || "";
  const hint = error?.hint || "";
  const request = error?.requestId ? t("error.request", { id: error.requestId }) : "";
  if (known(`error.${code}.message`)) {
    const detail = [message, hint, request].filter(Boolean).join(" · ");
    return { message: t(`error.${code}.message`), hint: t(`error.${code}.hint`), detail };
  }
  return { message: message || t("error.internal.message"), hint, detail: request };
}
