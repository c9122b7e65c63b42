/* Language and theme, as two groups of radio buttons: on the login page and at the foot of the sidebar. */

import { h, icon, uniqueId } from "../dom.js";
import { LOCALES, LOCALE_NAMES, chooseLocale, locale, onLocaleChange, t } from "../i18n.js";
import { setTheme, theme } from "../preferences.js";

const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function settingsControls() {
  return h("div", { class: "settings" }, languageGroup(), themeGroup());
}

function languageGroup() {
  const name = uniqueId("language");
  const inputs = LOCALES.map((value) =>
    radio({ name, value, checked: value === locale(), onchange: () => chooseLocale(value) },
      h("span", { "aria-hidden": "true" }, value.toUpperCase()),
      h("span", { class: "visually-hidden", lang: value }, LOCALE_NAMES[value])));
  onLocaleChange(() => {
    for (const label of inputs) label.firstChild.checked = label.firstChild.value === locale();
  });
  return group(() => t("settings.language"), inputs);
}

function themeGroup() {
  const name = uniqueId("theme");
  const inputs = Object.entries(THEME_ICONS).map(([value, image]) =>
    radio({ name, value, checked: value === theme(), onchange: () => setTheme(value) },
      icon(image), h("span", { class: "visually-hidden" }, () => t(`settings.theme.${value}`))));
  return group(() => t("settings.theme"), inputs);
}

function radio({ name, value, checked, onchange }, ...content) {
  const input = h("input", { type: "radio", name, value, class: "visually-hidden", onchange });
  input.checked = checked;
  return h("label", { class: "segment" }, input, h("span", { class: "segment-face" }, content));
}

const group = (legend, inputs) =>
  h("fieldset", { class: "segments" }, h("legend", { class: "visually-hidden" }, legend), inputs);
