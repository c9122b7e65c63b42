/* Questions in a native <dialog>: it keeps the focus inside, closes on Esc and gives the focus back. */

import { h, uniqueId } from "../dom.js";
import { describeError, t } from "../i18n.js";

/** Resolves to `value()` when confirmed, to null when not. `title`, `confirm` are functions (localised). */
function ask({ title, body, confirm, danger = false, value = () => true, focus }) {
  const id = uniqueId("dialog");
  const cancel = h("button", { type: "button", class: "button" }, () => t("dialog.cancel"));
  const accept = h("button", { type: "submit", class: `button ${danger ? "danger" : "primary"}` }, confirm);
  const form = h("form", { method: "dialog", class: "dialog-form" },
    h("h2", { id }, title), body, h("div", { class: "dialog-actions" }, cancel, accept));
  const dialog = h("dialog", { "aria-labelledby": id }, form);
  const opener = document.activeElement;
  document.body.append(dialog);
  return new Promise((resolve) => {
    let answer = null;
    form.addEventListener("submit", () => {
      answer = value();
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (opener?.isConnected) opener.focus();
      resolve(answer);
    });
    dialog.showModal();
    (focus || cancel).focus();
    focus?.select?.();
  });
}

export function confirmDialog({ title, text, confirm }) {
  return ask({ title, body: h("p", {}, text), confirm, danger: true });
}

export function promptDialog({ title, label, value, confirm }) {
  const id = uniqueId("field");
  const input = h("input", { id, type: "text", required: true, maxlength: "200", autocomplete: "off" });
  input.value = value;
  const body = h("div", { class: "field" }, h("label", { for: id }, label), input);
  return ask({ title, body, confirm, value: () => input.value.trim() || null, focus: input });
}

export function chooseDialog({ title, label, options, value, confirm }) {
  const id = uniqueId("field");
  const select = h("select", { id }, options.map((option) => h("option", { value: option.value }, option.label)));
  select.value = value;
  const body = h("div", { class: "field" }, h("label", { for: id }, label), select);
  return ask({ title, body, confirm, value: () => select.value, focus: select });
}

/** An error as a block: message, what to do, and the server's own words folded away. */
export function errorNotice(error, ...actions) {
  const detail = h("details", {}, h("summary", {}, () => t("error.details")), h("p", {}, () => describeError(error).detail));
  detail.hidden = !describeError(error).detail;
  return h("div", { class: "notice error" },
    h("p", { class: "notice-message" }, () => describeError(error).message),
    h("p", { class: "notice-hint" }, () => describeError(error).hint),
    detail, actions.length ? h("div", { class: "notice-actions" }, actions) : null);
}

const toasts = h("div", { class: "toasts", role: "alert" });

/** A short message for an action that failed away from any form. */
export function toast(error) {
  if (!toasts.isConnected) document.body.append(toasts);
  const close = h("button", { type: "button", class: "button small" }, () => t("dialog.close"));
  const item = errorNotice(error, close);
  close.addEventListener("click", () => item.remove());
  toasts.append(item);
  setTimeout(() => item.remove(), 12_000);
}
