// The address decides which page is shown. A browser tells of a new address some time after it has
// changed, and keys may come in between: so a key first draws what the address says, then acts on it.

let shownPage = null, shown = null;

const address = () => location.hash.replace(/^#\/?/, "");

function pageOf(words) {
  if (words[0] === "latents") return [listPage(), "latents"];
  if (words[0] === "probe") return [probePage(), "probe"];
  if (words[0] === "states") return [statesPage(), ""];
  if (words[0] !== "latent") return [overview(), "overview"];
  const exists = META.latents && /^\d{1,9}$/.test(words[1]) && +words[1] < INDEX.count;
  return [exists ? latentPage(+words[1], words[2]) : page(noLatent(String(words[1]))), "latents"];
}

function arrive() {
  if (address() !== shown) show();
}

function go(hash) {
  leave();
  location.hash = hash;
  arrive();
}

function show() {
  const first = shown === null, [made, nav] = pageOf(address().split("/"));
  shown = address();
  shownPage = made;
  replace($("#main"), made);
  if (made.ready) made.ready();
  document.querySelectorAll("[data-nav]").forEach((link) => {
    if (link.dataset.nav === nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  stand(made);
  if (!first && document.activeElement === document.body) $("#main").focus({ preventScroll: true });
}

// How far a reader had scrolled is kept with the entry of the browser's history, for the way back.
function leave() {
  if (scrollY !== (history.state ? history.state.y : 0)) history.replaceState({ y: scrollY }, "");
}

function stand(made) {
  const y = history.state ? history.state.y : made.top ? made.top() : 0;
  scrollTo(0, y);
  if (made.paint) made.paint();
  const reached = scrollY;
  if (reached < y && made.whole) made.whole.then(() => { if (shownPage === made && scrollY === reached) scrollTo(0, y); });
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
  if (!$("#q") || !$("#q").offsetParent) go("#/latents");
  const field = $("#q");
  if (field) { field.focus(); field.select(); }
}

const DOES = { "/": search, "?": showKeys, t: changeTheme };

// What goes elsewhere waits for the answer to what is searched for, and then acts on that.
const GOES = {
  o: () => go("#/"), l: () => go("#/latents"), Enter: () => shownPage.open && shownPage.open(),
  j: () => shownPage.move && shownPage.move(1), k: () => shownPage.move && shownPage.move(-1),
};

function onKey(event) {
  const { key, target } = event, typing = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "range";
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("#keys").open) return;
  arrive();
  if (typing && key === "Escape") { event.preventDefault(); target.blur(); return; }
  if (key === "Enter" ? /^(BUTTON|A)$/.test(target.tagName) : typing) return;
  if (Object.hasOwn(DOES, key)) { event.preventDefault(); DOES[key](); }
  if (Object.hasOwn(GOES, key)) { event.preventDefault(); whenAnswered(GOES[key]); }
}

function start() {
  $("#where").textContent = META.where;
  $("#made").textContent = META.made;
  $("[data-nav=probe]").hidden = !META.probe;
  $("[data-nav=latents]").hidden = !META.latents;
  $("#theme").addEventListener("click", changeTheme);
  $("#help").addEventListener("click", showKeys);
  $(".skip").addEventListener("click", (event) => { event.preventDefault(); $("#main").focus(); });
  history.scrollRestoration = "manual";
  addEventListener("click", (event) => { if (event.target.closest("a[href^='#/']")) leave(); }, true);
  addEventListener("pagehide", leave);
  addEventListener("hashchange", arrive);
  addEventListener("keydown", onKey);
  addEventListener("scroll", () => { if (shownPage.paint) shownPage.paint(); }, { passive: true });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    document.querySelectorAll("figure").forEach((one) => one.redraw());
    if (shownPage.resized) shownPage.resized();
  });
  show();
}

window.RK = Object.assign({ start }, receive);
