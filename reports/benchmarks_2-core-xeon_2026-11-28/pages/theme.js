// Before anything is drawn: the theme that the reader chose, else the system's.
"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const stored = () => {
    try { return localStorage.getItem("dlbench-theme"); } catch { return null; } // may be denied
  };
  let theme = themes.includes(stored()) ? stored() : "system";
  const show = () => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    const name = document.querySelector("#theme span");
    if (name) name.textContent = theme;
  };
  root.classList.add("scripted");
  show();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      try { localStorage.setItem("dlbench-theme", theme); } catch { /* for this page only */ }
      show();
    });
  });
})();
