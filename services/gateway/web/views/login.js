/* The door: name, password, a clear word when they do not fit. */

import { NetworkError } from "../api.js";
import { h, icon, replace } from "../dom.js";
import { t } from "../i18n.js";
import { errorNotice } from "./dialogs.js";
import { settingsControls } from "./settings.js";

/** `onLogin()` runs after the session is open. `expired`: say why the person is here again. */
export function loginView({ client, onLogin, expired = false }) {
  const username = h("input", {
    id: "username", name: "username", type: "text", autocomplete: "username", autocapitalize: "none",
    spellcheck: "false", required: true, "aria-describedby": "login-problem",
  });
  const password = h("input", {
    id: "password", name: "password", type: "password", autocomplete: "current-password", required: true,
    "aria-describedby": "login-problem",
  });
  const problem = h("div", { id: "login-problem", role: "alert" });
  const submit = h("button", { type: "submit", class: "button primary wide" }, () => t("login.submit"));
  /* method=post: should the script fail to load, the password must not end up in the address bar */
  const form = h("form", { method: "post", class: "login-card", onsubmit: (event) => send(event) },
    h("div", { class: "login-head" }, mark(), h("h1", {}, () => t("login.title")), h("p", {}, () => t("login.subtitle"))),
    problem,
    h("div", { class: "field" }, h("label", { for: "username" }, () => t("login.username")), username),
    h("div", { class: "field" }, h("label", { for: "password" }, () => t("login.password")), password),
    submit);
  if (expired) replace(problem, h("p", { class: "notice" }, () => t("login.expired")));

  async function send(event) {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled")) return;
    submit.setAttribute("aria-disabled", "true");
    problem.replaceChildren();
    try {
      await client.login(username.value.trim(), password.value);
      await onLogin();
    } catch (error) {
      refuse(error);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  }

  function refuse(error) {
    const wrong = error.status === 401;
    replace(problem, wrong ? h("p", { class: "notice error" }, () => t("login.wrong")) : errorNotice(error));
    for (const input of [username, password]) input.toggleAttribute("aria-invalid", wrong);
    if (error instanceof NetworkError) return submit.focus();
    password.focus();
    return password.select();
  }

  const view = h("div", { class: "login" },
    h("main", { id: "main", class: "login-main" }, form,
      h("p", { class: "login-promise" }, icon("shield"), () => t("login.promise"))),
    h("footer", { class: "login-foot" }, settingsControls()));
  queueMicrotask(() => username.focus());
  return view;
}

export const mark = () => h("img", { src: "/web/icon.svg", alt: "", width: "40", height: "40", class: "mark" });
