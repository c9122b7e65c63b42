/* The history in the sidebar: open, rename, delete. */

import { h, iconButton, replace } from "../dom.js";
import { t, toDate } from "../i18n.js";
import { confirmDialog, promptDialog, toast } from "./dialogs.js";

const DAY_MS = 86_400_000;

/** `onGone(id)` runs after a thread was deleted. */
export function threadList({ client, onGone }) {
  const groups = h("div", { class: "thread-groups" });
  const element = h("nav", { class: "threads", "aria-label": () => t("threads.label") }, groups);
  let threads = [];
  let currentId = null;

  async function reload() {
    threads = await client.threads();
    draw();
  }

  function draw() {
    const sorted = [...threads].sort((left, right) => moment(right) - moment(left));
    const byAge = Map.groupBy ? Map.groupBy(sorted, age) : groupBy(sorted, age);
    replace(groups,
      sorted.length ? null : h("p", { class: "threads-empty" }, () => t("threads.empty")),
      [...byAge].map(([key, list]) => [
        h("p", { class: "thread-age", id: `threads-${key}` }, () => t(`threads.${key}`)),
        h("ul", { "aria-labelledby": `threads-${key}` }, list.map(row)),
      ]));
  }

  function row(thread) {
    const title = () => thread.title || t("threads.untitled");
    return h("li", { class: "thread" },
      h("a", {
        href: `#/t/${encodeURIComponent(thread.id)}`, title, "aria-current": thread.id === currentId ? "page" : null,
      }, title),
      iconButton("pencil", () => t("threads.rename", { title: title() }), () => rename(thread), { class: "small" }),
      iconButton("trash", () => t("threads.delete", { title: title() }), () => remove(thread), { class: "small" }));
  }

  async function rename(thread) {
    const title = await promptDialog({
      title: () => t("threads.rename.title"), label: () => t("threads.rename.label"), value: thread.title || "",
      confirm: () => t("threads.rename.confirm"),
    });
    if (title) await attempt(() => client.renameThread(thread.id, title));
  }

  async function remove(thread) {
    const sure = await confirmDialog({
      title: () => t("threads.delete.title"), confirm: () => t("threads.delete.confirm"),
      text: () => t("threads.delete.text", { title: thread.title || t("threads.untitled") }),
    });
    if (sure && await attempt(() => client.deleteThread(thread.id))) onGone(thread.id);
  }

  async function attempt(work) {
    try {
      await work();
      await reload();
      return true;
    } catch (error) {
      toast(error);
      return false;
    }
  }

  return {
    element,
    reload,
    select(id) {
      currentId = id;
      draw();
    },
    titleOf: (id) => threads.find((thread) => thread.id === id)?.title || "",
    clear() {
      threads = [];
      draw();
    },
  };
}

const moment = (thread) => (toDate(thread.updated_at || thread.created_at) || new Date(0)).getTime();

function age(thread) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (moment(thread) >= midnight) return "today";
  return moment(thread) >= midnight - 6 * DAY_MS ? "week" : "older";
}

function groupBy(list, keyOf) {
  const map = new Map();
  for (const item of list) map.set(keyOf(item), [...(map.get(keyOf(item)) || []), item]);
  return map;
}
