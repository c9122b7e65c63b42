/* The line across the top while the box cannot be reached. */

import { h, icon } from "../dom.js";
import { t } from "../i18n.js";

export function banner({ connection, onBack }) {
  const retry = h("button", { type: "button", class: "button small", onclick: () => connection.probe() },
    () => t("banner.retry"));
  const element = h("div", { class: "banner", role: "status" });
  const content = h("div", { class: "banner-line" }, icon("alert"), h("span", {}, () => t("banner.offline")), retry);
  connection.addEventListener("change", () => {
    if (connection.online) {
      element.replaceChildren();
      onBack();
    } else element.replaceChildren(content);
  });
  return element;
}
