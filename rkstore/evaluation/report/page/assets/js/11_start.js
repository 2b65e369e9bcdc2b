// Routes in the hash, keys, theme.

let shownPage = null;

function pageOf(words) {
  if (words[0] === "latents") return [listPage(), "latents"];
  if (words[0] === "probe") return [probePage(), "probe"];
  if (words[0] === "states") return [statesPage(), ""];
  if (words[0] !== "latent") return [overview(), "overview"];
  const exists = META.latents && /^\d{1,9}$/.test(words[1]) && +words[1] < INDEX.count;
  return [exists ? latentPage(+words[1], words[2]) : page(noLatent(String(words[1]))), "latents"];
}

function route() {
  const words = location.hash.replace(/^#\/?/, "").split("/");
  const [made, nav] = pageOf(words);
  shownPage = made;
  replace($("#main"), made);
  if (made.ready) made.ready();
  document.querySelectorAll("[data-nav]").forEach((link) => {
    if (link.dataset.nav === nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  scrollTo(0, 0);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "dark" || (chosen === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function changeTheme() {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("rkstore-theme", next); } catch (error) { /* not allowed */ }
}

const KEYS = [["/", "search"], ["j  k", "next, previous latent"], ["Enter", "open"], ["o  l", "overview, latents"], ["t", "light or dark"], ["?", "this list"], ["Esc", "close, leave the field"]];

function showKeys() {
  const dialog = $("#keys");
  replace(dialog, h("h2", { id: "keys-title" }, "Keys"), h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("button", { class: "quiet more", type: "button", on: { click: () => dialog.close() } }, "Close"));
  if (!dialog.open) dialog.showModal();
}

function search() {
  const field = $("#q");
  if (field && field.offsetParent) { field.focus(); field.select(); return; }
  location.hash = "#/latents";
  setTimeout(() => { const there = $("#q"); if (there) there.focus(); }, 50);
}

function step(forward) {
  if (shownPage.move) { shownPage.move(forward ? 1 : -1); return; }
  const link = $(forward ? "a[rel=next]" : "a[rel=prev]");
  if (link) location.hash = link.getAttribute("href");
}

function onKey(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
  if (event.ctrlKey || event.metaKey || event.altKey || $("#keys").open) return;
  if (typing && event.key === "Escape") { event.target.blur(); return; }
  if (event.key === "Enter") {
    if (shownPage.open && (typing || !/^(BUTTON|A)$/.test(event.target.tagName))) shownPage.open();
    return;
  }
  if (typing) return;
  const does = { "/": search, "?": showKeys, t: changeTheme, o: () => { location.hash = "#/"; }, l: () => { location.hash = "#/latents"; }, j: () => step(true), k: () => step(false) }[event.key];
  if (does) { event.preventDefault(); does(); }
}

function start() {
  $("#where").textContent = META.where;
  $("#made").textContent = META.made;
  $("[data-nav=probe]").hidden = !META.probe;
  $("[data-nav=latents]").hidden = !META.latents;
  $("#theme").addEventListener("click", changeTheme);
  $("#help").addEventListener("click", showKeys);
  addEventListener("hashchange", route);
  addEventListener("keydown", onKey);
  addEventListener("scroll", () => { if (shownPage.paint) shownPage.paint(); }, { passive: true });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (!/^#\/latent\//.test(location.hash)) route(); } });
  route();
}

window.RK = Object.assign({ start }, receive);
