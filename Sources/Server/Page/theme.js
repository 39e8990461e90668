// Before anything is drawn: the colours that were chosen; none = those of the system.
"use strict";
{
  let theme = null;
  try { theme = localStorage.getItem("flashinfer.theme"); } catch { /* Storage is off: the system's. */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
