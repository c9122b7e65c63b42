/* The documents a person may see: add, watch, find, download, delete. */

import { isAbort } from "../api.js";
import { announce, h, icon, iconButton, replace, saveBlob, uniqueId } from "../dom.js";
import { describeError, formatBytes, formatDate, known, pageName, t } from "../i18n.js";
import { confirmDialog, errorNotice, toast } from "./dialogs.js";
import { uploadQueue } from "./uploads.js";

const PAGE_SIZE = 50;
const MAX_PAGE = 1_000;
const MOVING = new Set(["queued", "parsing", "indexing"]);
const REFRESH_MS = 3_000;
const SEARCH_DELAY_MS = 250;

export function documentsView({ client, library, connection }) {
  const heading = h("h1", { class: "view-title", tabindex: "-1" }, () => t("documents.title"));
  const list = h("ul", { class: "documents", "aria-label": () => t("documents.title") });
  const foot = h("div", { class: "documents-foot" });
  const queue = uploadQueue({ client, library, connection, onChange: () => changed() });
  const filter = filterBar(library, () => reload());
  const drop = dropZone(library, (files, space) => queue.add(files, space));
  const element = h("section", { class: "view documents-view", hidden: true },
    h("header", { class: "view-head" }, heading),
    h("div", { class: "documents-body" }, h("div", { class: "column" },
      drop.element, queue.element, filter.element, list, foot)));
  let documents = [];
  let hasMore = false;
  let loading = null;
  let timer = null;

  function changed() {
    library.reloadSpaces().catch(() => {});
    if (!element.hidden) reload();
  }

  async function reload() {
    clearTimeout(timer);
    loading?.abort();
    loading = new AbortController();
    try {
      const page = await client.documents({ space: filter.space(), limit: pageSize(), signal: loading.signal });
      documents = page.data;
      hasMore = page.has_more;
      draw();
    } catch (error) {
      if (!isAbort(error)) replace(foot, errorNotice(error));
      return;
    }
    if (documents.some(({ status }) => MOVING.has(status)) && !element.hidden) timer = setTimeout(reload, REFRESH_MS);
  }

  /** The API finds a document by its whole name only, so a search by part of it looks through a long page here. */
  const pageSize = () => Math.min(MAX_PAGE, filter.words() ? MAX_PAGE : Math.max(PAGE_SIZE, documents.length));

  async function loadMore() {
    try {
      const page = await client.documents({ space: filter.space(), limit: pageSize(), after: documents.at(-1).id });
      documents = [...documents, ...page.data];
      hasMore = page.has_more;
      draw();
    } catch (error) {
      toast(error);
    }
  }

  function draw() {
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    replace(list, documents.filter(({ name }) => matches(name, filter.words())).map((item) => documentRow(item, library, { onDelete, onSave })));
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    const empty = filter.isSet() ? "documents.empty.filter" : "documents.empty";
    replace(foot,
      list.children.length ? null : h("p", { class: "documents-empty" }, () => t(empty)),
      hasMore ? h("button", { type: "button", class: "button", onclick: loadMore }, () => t("documents.more")) : null);
  }

  async function onSave(item) {
    try {
      saveBlob(await client.documentOriginal(item.id), item.name);
    } catch (error) {
      toast(error);
    }
  }

  async function onDelete(item) {
    const sure = await confirmDialog({
      title: () => t("documents.delete.title"), confirm: () => t("documents.delete.confirm"),
      text: () => t("documents.delete.text", { name: item.name, space: library.titleOf(item.space) }),
    });
    if (!sure) return;
    try {
      await client.deleteDocument(item.id);
      announce(t("documents.deleted", { name: item.name }));
      changed();
      heading.focus();
    } catch (error) {
      toast(error);
    }
  }

  return {
    element,
    heading,
    reload,
    add: (files, space) => queue.add(files, space),
    leave() {
      clearTimeout(timer);
      loading?.abort();
    },
    reset() {
      documents = [];
      queue.clear();
      draw();
    },
  };
}

/** Where files are chosen or dropped; readers of every space see why they cannot add any. */
function dropZone(library, onFiles) {
  const spaceId = uniqueId("upload-space");
  const fileId = uniqueId("upload-files");
  const select = h("select", { id: spaceId, onchange: () => {
    library.uploadSpace = select.value;
  } });
  const file = h("input", { id: fileId, type: "file", multiple: true, class: "visually-hidden", "aria-describedby": `${fileId}-types` });
  const zone = h("div", { class: "drop" },
    icon("upload"),
    h("div", { class: "drop-words" },
      h("p", {}, file, h("label", { for: fileId, class: "button primary" }, () => t("documents.choose")), " ",
        h("span", { class: "drop-or" }, () => t("documents.drop"))),
      h("p", { id: `${fileId}-types`, class: "drop-types" }, () => t("documents.types"))),
    h("div", { class: "field inline" }, h("label", { for: spaceId }, () => t("documents.into")), select));
  const element = h("div", {});

  function draw() {
    const writable = library.writable;
    const chosen = select.value || library.uploadSpace;
    replace(select, writable.map(({ name, title }) => h("option", { value: name }, title || name)));
    if (writable.some(({ name }) => name === chosen)) select.value = chosen;
    replace(element, writable.length ? zone : h("p", { class: "notice" }, () => t("documents.reader")));
  }

  file.addEventListener("change", () => {
    onFiles([...file.files], select.value);
    file.value = "";
  });
  for (const type of ["dragenter", "dragover"]) {
    zone.addEventListener(type, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove("over");
    onFiles([...event.dataTransfer.files], select.value);
  });
  library.addEventListener("change", draw);
  draw();
  return { element };
}

function filterBar(library, onChange) {
  const nameId = uniqueId("filter-name");
  const spaceId = uniqueId("filter-space");
  let timer = null;
  const name = h("input", { id: nameId, type: "search", placeholder: () => t("documents.find"), oninput: () => {
    clearTimeout(timer);
    timer = setTimeout(onChange, SEARCH_DELAY_MS);
  } });
  const space = h("select", { id: spaceId, onchange: onChange });
  const element = h("div", { class: "filters", role: "search", "aria-label": () => t("documents.filter") },
    h("div", { class: "field grow" }, h("label", { for: nameId, class: "visually-hidden" }, () => t("documents.find")), name),
    h("div", { class: "field" }, h("label", { for: spaceId, class: "visually-hidden" }, () => t("documents.filter.space")), space));

  function draw() {
    const chosen = space.value;
    replace(space, h("option", { value: "" }, () => t("spaces.all")),
      library.spaces.map((item) => h("option", { value: item.name }, item.title || item.name)));
    space.value = library.spaces.some((item) => item.name === chosen) ? chosen : "";
  }
  library.addEventListener("change", draw);
  draw();
  return {
    element,
    isSet: () => Boolean(name.value.trim() || space.value),
    words: () => name.value.trim(),
    space: () => space.value || undefined,
  };
}

/** Every word occurs somewhere in the name; ё counts as е. */
function matches(name, words) {
  const plain = (text) => text.toLowerCase().replaceAll("ё", "е");
  return plain(words).split(/\s+/).every((word) => plain(name).includes(word));
}

function documentRow(item, library, { onDelete, onSave }) {
  const role = library.spaces.find(({ name }) => name === item.space)?.role;
  const facts = () => [
    library.titleOf(item.space),
    item.pages ? t("documents.pages", { count: item.pages }) : null,
    formatBytes(item.size_bytes),
    formatDate(item.updated_at || item.created_at),
  ].filter(Boolean).join(" · ");
  return h("li", { class: "document" },
    h("span", { class: "document-icon" }, icon("file")),
    h("div", { class: "document-main" },
      h("p", { class: "document-name" }, item.name),
      h("p", { class: "document-facts" }, facts),
      item.error ? errorNotice(item.error) : null,
      item.warnings?.length ? warningList(item) : null),
    h("span", { class: `status ${item.status}` }, () => t(`documents.status.${item.status}`)),
    h("div", { class: "document-actions" },
      iconButton("download", () => t("documents.download", { name: item.name }), () => onSave(item), { "data-key": `save:${item.id}` }),
      role === "reader" ? null
        : iconButton("trash", () => t("documents.delete", { name: item.name }), () => onDelete(item), { "data-key": `delete:${item.id}` })));
}

function warningList({ name, warnings }) {
  const text = ({ page, code, message }) => {
    const words = known(`warning.${code}`) ? t(`warning.${code}`) : message || describeError({ code }).message;
    return page ? `${pageName(name, page)}: ${words}` : words;
  };
  return h("details", { class: "warnings" },
    h("summary", {}, icon("alert"), () => t("documents.warnings", { count: warnings.length })),
    h("ul", {}, warnings.map((warning) => h("li", {}, () => text(warning)))));
}
