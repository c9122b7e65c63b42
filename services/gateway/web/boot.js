/* Runs before the first paint, so that a reload does not flash the other theme or announce the page in the other
 * language. A classic script on purpose: modules are deferred. Everything else about both lives in preferences.js. */
(() => {
  "use strict";
  const root = document.documentElement;
  const stored = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const theme = stored("theme");
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "dark" : "light";
  const locale = stored("locale") || navigator.language || "en";
  root.lang = locale.toLowerCase().startsWith("ru") ? "ru" : "en";
})();
