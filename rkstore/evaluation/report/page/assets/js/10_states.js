// Hard tokens and empty states, all on one page: to be looked at after a change of the design.

const HARD = [["space", " "], ["newline", "\n"], ["newlines", "\n\n\n"], ["tabs", "\t\t"], ["leading space", " streams"], ["no-break space", "\u00a0"],
  ["right to left", " שלום"], ["Arabic", " العربية"], ["emoji", "👩🏽‍🔬"], ["bidi control", "a\u202eb"], ["NUL", "\u0000"],
  ["markup", "<script>alert(1)</script>"], ["closing tag", "</textarea>"], ["bytes", [0xe2, 0x80]], ["combining marks", "e" + "\u0301".repeat(10000)],
  ["long", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"], ["empty", ""], ["Chinese", "下"]];

function statesPage() {
  document.title = "Hard tokens and empty states";
  const shades = Array.from({ length: 17 }, (_, k) => Math.min(255, k * 16));
  return page(h("h1", {}, "Hard tokens and empty states"),
    section("Alone", null, h("ul", { class: "rows" }, HARD.map(([name, piece]) => h("li", {}, chip(-1, piece), h("span", { class: "value note" }, name))))),
    section("In running text", null, h("p", {}, HARD.map(([, piece], k) => [" ", inText(-1, ((k * 14 + 30) % 255) + 1, 3, k === 6, piece)]))),
    section("The scale", null, h("p", {}, shades.map((a) => [inText(-1, a, 1, false, " word"), " "])),
      h("p", {}, shades.slice(1).map((a) => [inText(-1, -a, 1, false, " minus"), " "]))),
    section("States", null, empty("No dictionary.", "This store has been harvested and not trained on: the overview shows what it holds."), noLatent("99999999")));
}

function noLatent(asked) {
  if (!META.latents) return empty("No dictionary.", "This report has no latents.");
  return empty("Latent " + shortened(asked, 40) + " does not exist.", "This dictionary has " + whole(INDEX.count) + ": 0 to " + whole(INDEX.count - 1) + ". ", h("a", { href: "#/latents" }, "All latents"));
}
