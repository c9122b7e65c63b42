/* Where to look: a button that says it, and a list of check boxes with counts behind it. */

import { h, icon, replace, uniqueId } from "../dom.js";
import { t } from "../i18n.js";

export function spacesPicker({ library }) {
  const id = uniqueId("spaces");
  const label = h("span", { class: "picker-label" }, () => summary(library));
  const button = h("button", {
    type: "button", class: "button quiet picker-button", "aria-expanded": "false", "aria-controls": id,
    onclick: () => toggle(list.hidden),
  }, icon("folder"), label, icon("chevron"));
  const list = h("fieldset", { id, class: "picker-list" });
  list.hidden = true;
  const element = h("div", { class: "picker" }, button, list);

  function toggle(open) {
    list.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) list.querySelector("input")?.focus();
  }

  function draw() {
    const focused = list.contains(document.activeElement) ? document.activeElement.value : null;
    replace(label, () => summary(library));
    replace(list,
      h("legend", {}, () => t("spaces.legend")),
      option({ value: "*", checked: library.selection === null, label: () => t("spaces.all"), count: library.documents,
               onchange: (event) => library.select(event.target.checked ? null : []) }),
      h("hr"),
      library.spaces.map(({ name, title, documents }) =>
        option({ value: `space:${name}`, checked: library.selection?.includes(name) ?? true, label: title || name,
                 count: documents, onchange: () => library.select(checkedNames()) })),
      h("p", { class: "picker-note" }, () => t(library.selection?.length === 0 ? "spaces.none.note" : "spaces.note")));
    if (focused) list.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
  }

  const checkedNames = () =>
    [...list.querySelectorAll("input[value^='space:']:checked")].map(({ value }) => value.slice("space:".length));

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    event.stopPropagation();
    toggle(false);
    button.focus();
  });
  element.addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !element.contains(relatedTarget)) toggle(false);
  });
  document.addEventListener("pointerdown", ({ target }) => element.contains(target) || toggle(false));
  library.addEventListener("change", draw);
  draw();
  return element;
}

function option({ value, checked, label, count, onchange }) {
  const input = h("input", { type: "checkbox", value, onchange });
  input.checked = checked;
  return h("label", { class: "picker-option" }, input, h("span", { class: "picker-name" }, label),
    h("span", { class: "count" }, () => t("spaces.documents", { count: count || 0 })));
}

function summary({ selection, spaces, titleOf }) {
  if (selection === null && spaces.length === 1) return titleOf.call({ spaces }, spaces[0].name);
  if (selection === null) return t("spaces.summary.all", { count: spaces.length });
  if (selection.length === 0) return t("spaces.summary.none");
  if (selection.length === 1) return titleOf.call({ spaces }, selection[0]);
  return t("spaces.summary.some", { count: selection.length });
}
