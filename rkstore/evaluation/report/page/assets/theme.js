"use strict";
// Before the first paint: the theme of the address, else the one chosen before, else the system's.
(function () {
  var asked = /[?&]theme=(dark|light)/.exec(location.search), chosen = asked && asked[1];
  try { chosen = chosen || localStorage.getItem("rkstore-theme"); } catch (error) { /* not allowed */ }
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : "auto";
})();
