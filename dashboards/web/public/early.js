// Runs before the first paint, so that the page never flashes in another theme or language than the chosen one.
(function () {
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  try {
    const theme = localStorage.getItem("qala.theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    const lang = new URLSearchParams(location.search).get("lang") || localStorage.getItem("qala.lang");
    if (lang === "en" || lang === "ru" || lang === "kk") root.lang = lang;
  } catch {
    // Storage may be forbidden: the page then follows the system.
  }
})();
