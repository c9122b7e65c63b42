/* The question field: grows with its text, Enter sends, Shift+Enter breaks the line, Esc stops the answer.
 *
 * Unsent text is kept in sessionStorage until it has left for the box, so neither a lost network nor a reload nor a
 * session that ended eats it. Logging out clears it. */

import { h, icon, iconButton, replace } from "../dom.js";
import { t } from "../i18n.js";
import { errorNotice } from "./dialogs.js";
import { spacesPicker } from "./spaces.js";

const DRAFT = "draft";
const MAX_CHARACTERS = 20_000;

/** `onSend(text)` resolves when the question has left; a thrown error keeps the text. */
export function composer({ library, onSend, onStop, onFiles }) {
  const problem = h("div", { class: "composer-problem", role: "alert" });
  const input = h("textarea", {
    id: "question", rows: "1", maxlength: String(MAX_CHARACTERS), placeholder: () => t("chat.placeholder"),
    "aria-describedby": "question-help", enterkeyhint: "send", oninput: () => edited(),
  });
  const file = h("input", { type: "file", multiple: true, hidden: true, tabindex: "-1", "aria-hidden": "true" });
  const attach = iconButton("upload", () => t("chat.attach"), () => file.click());
  const send = h("button", {
    type: "submit", class: "round-button send", "aria-label": () => t("chat.send"), title: () => t("chat.send"),
  }, icon("send"));
  const stop = h("button", {
    type: "button", class: "round-button stop", "aria-label": () => t("chat.stop"), title: () => t("chat.stop"),
    onclick: () => onStop(), hidden: true,
  }, icon("stop"));
  const element = h("form", { method: "post", class: "composer", onsubmit: (event) => submit(event) },
    problem,
    h("div", { class: "composer-box" },
      h("label", { for: "question", class: "visually-hidden" }, () => t("chat.question")),
      input,
      h("div", { class: "composer-row" }, spacesPicker({ library }), attach, file, h("span", { class: "spring" }), send, stop)),
    h("p", { id: "question-help", class: "composer-help" }, () => t("chat.help")));
  let sending = false;

  function edited() {
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight, 220)}px`;
    send.toggleAttribute("data-idle", !input.value.trim());
    keep(input.value);
  }

  async function submit(event) {
    event?.preventDefault();
    const text = input.value.trim();
    if (!text || sending || !stop.hidden) return;
    sending = true;
    problem.replaceChildren();
    try {
      await onSend(text);
      set("");
    } catch (error) {
      replace(problem, errorNotice(error));
    } finally {
      sending = false;
    }
  }

  function set(text) {
    input.value = text;
    edited();
  }

  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  file.addEventListener("change", () => {
    onFiles([...file.files]);
    file.value = "";
  });
  input.value = kept();
  queueMicrotask(edited);

  return {
    element,
    set,
    focus: () => input.focus(),
    restore: () => set(kept()),
    clearProblem: () => problem.replaceChildren(),
    setBusy(busy) {
      const held = document.activeElement === send || document.activeElement === stop;
      send.hidden = busy;
      stop.hidden = !busy;
      if (held) input.focus();
    },
    allowFiles: (allowed) => {
      attach.hidden = !allowed;
    },
  };
}

export function forgetDraft() {
  keep("");
}

function keep(text) {
  try {
    if (text) sessionStorage.setItem(DRAFT, text);
    else sessionStorage.removeItem(DRAFT);
  } catch {
    /* storage forbidden */
  }
}

function kept() {
  try {
    return sessionStorage.getItem(DRAFT) || "";
  } catch {
    return "";
  }
}
