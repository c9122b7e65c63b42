/* What this browser remembers about the reader: theme and language. Never anything about the session or the
 * documents. Storage may be forbidden (private mode, policy): then the choice lasts until the page is closed. */

const kept = new Map();

export function remember(key, value) {
  kept.set(key, value);
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    /* kept in memory only */
  }
}

export function recall(key) {
  if (kept.has(key)) return kept.get(key);
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

/** The reader's choice: "light", "dark" or "auto" (follow the system). */
export function theme() {
  const choice = recall("theme");
  return choice === "light" || choice === "dark" ? choice : "auto";
}

export function setTheme(choice) {
  remember("theme", choice === "auto" ? null : choice);
  applyTheme();
}

function applyTheme() {
  const choice = theme();
  const dark = choice === "dark" || (choice === "auto" && darkScheme.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

darkScheme.addEventListener("change", applyTheme);
