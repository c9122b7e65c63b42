/* Composition: builds the client and the views, decides which one is seen, and nothing else. */

import { BoxClient, NetworkError, SessionExpired } from "./api.js";
import { Connection } from "./connection.js";
import { announce } from "./dom.js";
import { onLocaleChange, preferredLocale, setLocale, t } from "./i18n.js";
import { Library } from "./library.js";
import { banner } from "./views/banner.js";
import { chatView } from "./views/chat.js";
import { forgetDraft } from "./views/composer.js";
import { chooseDialog, toast } from "./views/dialogs.js";
import { documentsView } from "./views/documents.js";
import { loginView } from "./views/login.js";
import { shellView } from "./views/shell.js";
import { sourcePanel } from "./views/sources.js";
import { threadList } from "./views/threads.js";

const root = document.getElementById("app");
const client = new BoxClient();
const connection = new Connection(client);
const library = new Library(client);
let page = null;
let lastUser = null;

function buildPage() {
  const panel = sourcePanel({ client, library, onToggle: () => shell.settle() });
  const threads = threadList({ client, onGone: (id) => chat.threadId === id && go("#/") });
  const chat = chatView({
    client, library, onCite: panel.open, onThread: turnStored, onFiles: addFiles, onAddDocuments: () => go("#/documents"),
  });
  const documents = documentsView({ client, library, connection });
  const shell = shellView({
    banner: banner({ connection, onBack: comeBack }), threads, panel, library,
    views: [chat.element, documents.element], onNew: newChat, onLogout: logout,
  });
  return { panel, threads, chat, documents, shell };
}

/* -- routes: #/ new chat, #/t/ID thread, #/documents -------------------------------------------------------------- */

function go(hash) {
  if (location.hash === hash) route();
  else location.hash = hash;
}

function newChat() {
  page.panel.close();
  page.chat.reset();
  go("#/");
}

function route() {
  if (!page?.shell.element.isConnected || (location.hash && !location.hash.startsWith("#/"))) return;
  const { chat, documents, threads, shell, panel } = page;
  const [, view, id] = location.hash.split("/");
  const inDocuments = view === "documents";
  chat.element.hidden = inDocuments;
  documents.element.hidden = !inDocuments;
  shell.mark(view);
  if (inDocuments) {
    panel.close();
    threads.select(null);
    documents.reload();
    documents.heading.focus();
  } else {
    documents.leave();
    const threadId = view === "t" && id ? decodeURIComponent(id) : null;
    if (threadId !== chat.threadId) panel.close();
    threads.select(threadId);
    chat.open(threadId, threads.titleOf(threadId));
  }
  nameWindow();
}

function nameWindow() {
  const heading = page?.shell.element.isConnected
    ? (page.documents.element.hidden ? page.chat.heading : page.documents.heading).textContent
    : t("login.submit");
  document.title = `${heading} · ${t("product")}`;
}

/** A turn ended: a new thread gets its address (without reloading what is on the screen) and the list its entry. */
async function turnStored(threadId) {
  const isNew = threadId && !location.hash.startsWith("#/t/");
  if (isNew && !page.chat.element.hidden) history.replaceState(null, "", `#/t/${encodeURIComponent(threadId)}`);
  try {
    await page.threads.reload();
  } catch {
    return;
  }
  if (!threadId || threadId !== page.chat.threadId) return;
  page.threads.select(threadId);
  page.chat.setTitle(page.threads.titleOf(threadId));
  nameWindow();
}

/* -- files from anywhere on the page ------------------------------------------------------------------------------ */

/** Spaces have different readers, so where a file goes is never guessed when there is a choice. */
async function addFiles(files) {
  if (!files.length || !library.writable.length) return;
  const [only] = library.writable;
  const space = library.writable.length === 1 ? only.name : await chooseDialog({
    title: () => t("documents.add.title", { count: files.length }), label: () => t("documents.into"),
    options: library.writable.map(({ name, title }) => ({ value: name, label: title || name })),
    value: library.uploadSpace, confirm: () => t("documents.add.confirm"),
  });
  if (!space) return;
  library.uploadSpace = space;
  go("#/documents");
  page.documents.add(files, space);
}

document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (page?.shell.element.isConnected) addFiles([...event.dataTransfer.files]);
});

/* -- session ------------------------------------------------------------------------------------------------------ */

async function enter() {
  await library.load();
  page ??= buildPage();
  if (lastUser !== null && lastUser !== library.me.subject) startClean();
  lastUser = library.me.subject;
  root.replaceChildren(page.shell.element);
  page.shell.settle();
  client.chat.start();
  await page.threads.reload().catch((error) => error instanceof NetworkError || toast(error));
  library.select(library.selection);
  route();
  page.chat.focus();
}

function startClean() {
  page.chat.reset();
  page.documents.reset();
  page.threads.clear();
  page.panel.close();
}

function showLogin(expired = false) {
  client.chat.close();
  page?.panel.close();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  root.replaceChildren(loginView({ client, onLogin: enter, expired }));
  nameWindow();
}

async function logout() {
  forgetDraft();
  const told = client.logout();
  library.forget();
  startClean();
  history.replaceState(null, "", "#/");
  showLogin();
  announce(t("logout.done"));
  await told.catch(() => {});
}

/** The box is back after it could not be reached. */
function comeBack() {
  client.chat.retry();
  page.chat.clearProblem();
  library.reloadSpaces().catch(() => {});
  page.threads.reload().catch(() => {});
  if (!page.documents.element.hidden) page.documents.reload();
}

client.session.addEventListener("expired", () => showLogin(true));
window.addEventListener("hashchange", route);
onLocaleChange(nameWindow);

async function start() {
  await setLocale(preferredLocale());
  if (!client.session.isOpen) return showLogin();
  try {
    await enter();
  } catch (error) {
    if (error instanceof SessionExpired) return undefined;
    showLogin();
    if (error instanceof NetworkError) connection.addEventListener("change", () => location.reload(), { once: true });
    toast(error);
  }
  return undefined;
}

start();
