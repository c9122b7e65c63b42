/* The frame around the views: skip link, sidebar, main part, source panel; on a narrow screen the sidebar is a drawer
 * and the panel covers the page, and what lies beneath is inert. */

import { h, icon, iconButton, replace } from "../dom.js";
import { t } from "../i18n.js";
import { settingsControls } from "./settings.js";

const NARROW = matchMedia("(max-width: 820px)");
const COVERED = matchMedia("(max-width: 1180px)");

/** `views` are the sections of the main part; `onNew`, `onLogout` are actions of the sidebar. */
export function shellView({ banner, threads, views, panel, library, onNew, onLogout }) {
  const main = h("main", { id: "main", tabindex: "-1" }, banner, views);
  const user = h("span", { class: "user-name" });
  const link = (name, image, label, count) =>
    h("a", { class: "nav-link", href: `#/${name}`, "data-view": name }, icon(image), h("span", {}, label), count);
  const count = h("span", { class: "count" });
  const sidebar = h("div", { class: "sidebar", id: "sidebar" },
    h("header", { class: "sidebar-head" },
      h("img", { src: "/web/icon.svg", alt: "", width: "28", height: "28" }),
      h("span", { class: "product" }, () => t("product")),
      iconButton("close", () => t("menu.close"), () => drawer(false), { class: "drawer-only" })),
    h("div", { class: "sidebar-top" },
      h("button", { type: "button", class: "button new-chat", onclick: () => leave(onNew) }, icon("plus"), () => t("chat.new")),
      h("nav", { "aria-label": () => t("menu.label") }, link("documents", "folder", () => t("documents.title"), count))),
    threads.element,
    h("footer", { class: "sidebar-foot" },
      settingsControls(),
      h("div", { class: "user" }, user,
        h("button", { type: "button", class: "button quiet small", onclick: onLogout }, icon("exit"), () => t("logout")))));
  const menu = iconButton("menu", () => t("menu.open"), () => drawer(true), {
    class: "drawer-only menu-button", "aria-expanded": "false", "aria-controls": "sidebar",
  });
  const backdrop = h("div", { class: "backdrop", onclick: () => drawer(false) });
  const skip = h("a", { class: "skip", href: "#main", onclick: (event) => {
    event.preventDefault();
    main.focus();
  } }, () => t("skip"));
  const element = h("div", { class: "shell" }, skip, menu, sidebar, backdrop, main, panel.element);

  function drawer(open) {
    const was = element.classList.contains("drawer-open");
    element.classList.toggle("drawer-open", open);
    menu.setAttribute("aria-expanded", String(open));
    settle();
    if (open) sidebar.querySelector(".drawer-only").focus();
    else if (was && NARROW.matches) menu.focus();
  }

  function leave(action) {
    drawer(false);
    action();
  }

  /** What is covered must not be reached by Tab or by a screen reader. */
  function settle() {
    const open = element.classList.contains("drawer-open") && NARROW.matches;
    const covered = !panel.element.hidden && COVERED.matches;
    sidebar.inert = (NARROW.matches && !open) || covered;
    main.inert = open || covered;
    menu.inert = open || covered;
    skip.inert = open || covered;
    panel.element.inert = open;
    element.classList.toggle("panel-open", !panel.element.hidden);
  }

  sidebar.addEventListener("keydown", (event) => event.key === "Escape" && drawer(false));
  sidebar.addEventListener("click", (event) => event.target.closest("a") && drawer(false));
  for (const query of [NARROW, COVERED]) query.addEventListener("change", settle);
  library.addEventListener("change", () => {
    replace(user, library.userName);
    replace(count, library.documents ? String(library.documents) : "");
  });
  settle();

  return {
    element,
    settle,
    mark(view) {
      for (const item of sidebar.querySelectorAll("[data-view]")) {
        if (item.dataset.view === view) item.setAttribute("aria-current", "page");
        else item.removeAttribute("aria-current");
      }
    },
  };
}
