"""The looks of the report page, and the few lines of script that sort its tables."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1f2328; --soft: #5d6570; --rule: #e4e0d8; --tint: #f3f0ea;
  --c0: #4a5ab0; --c1: #b5541c; --c2: #0a7d6f; --c3: #8b4a92; --c4: #8a6a0a; --c5: #5f6b7a;
  --shadow: 0 1px 2px rgb(40 30 20 / 6%), 0 6px 20px rgb(40 30 20 / 4%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --card: #1d2024; --ink: #e7e5e0; --soft: #a0a6ae; --rule: #33373d; --tint: #24282d;
    --c0: #98a6f2; --c1: #f0975c; --c2: #4cc4b3; --c3: #d595dd; --c4: #d9b44a; --c5: #a5b0bf;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main, header.top, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.5rem; }
h1, h2, .lede, .figure b { font-family: ui-serif, "Iowan Old Style", Charter, Georgia, "DejaVu Serif", serif; }
header.top { padding-top: 3rem; }
.eyebrow { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; }
.eyebrow b { color: var(--c1); font-weight: 600; }
h1 { margin: .2rem 0 .8rem; font-size: clamp(2rem, 5vw, 2.9rem); line-height: 1.1; font-weight: 600;
  letter-spacing: -.015em; overflow-wrap: anywhere; }
.lede { max-width: 46rem; margin: 0; font-size: 1.22rem; line-height: 1.5; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin-top: 1.4rem; padding: .6rem 0;
  border-block: 1px solid var(--rule); font-size: .9rem; }
a { color: inherit; text-decoration-color: var(--c1); text-underline-offset: .2em; }
section { margin-top: 3.2rem; }
h2 { margin: 0 0 .3rem; font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em; }
h3 { margin: 2rem 0 .6rem; font-size: 1.05rem; font-weight: 650; overflow-wrap: anywhere; }
h3 small, .note { color: var(--soft); font-size: .88rem; font-weight: 400; }
.note { max-width: 46rem; margin: .2rem 0 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1px; margin: 1.8rem 0 0;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.figure { margin: 0; padding: 1rem 1.2rem; background: var(--card); }
.figure b { display: block; font-size: 1.9rem; font-weight: 600; line-height: 1.15; }
.figure span { color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  box-shadow: var(--shadow); }
table { width: 100%; border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .6rem .75rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid var(--rule); color: var(--soft); font-size: .8rem; font-weight: 600; }
tbody th { font-weight: 600; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
td small { display: block; color: var(--soft); font-size: .78rem; }
th button { all: unset; cursor: pointer; }
th button:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--c1); outline-offset: 3px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.key { display: inline-block; width: .65em; height: .65em; margin-right: .55em; border-radius: 50%;
  background: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
figure { margin: 0; padding: 1rem 1.1rem .7rem; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; box-shadow: var(--shadow); }
section > figure, figure + .scroll { margin-top: 1rem; }
section > figure { overflow-x: auto; } svg.w720 { min-width: 34rem; }
figcaption { color: var(--soft); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg text { fill: var(--soft); font-size: 11.5px; }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; } svg .start { text-anchor: start; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .bubble { fill: currentColor; fill-opacity: .2; stroke: currentColor; stroke-width: 1.5; }
svg .dot { fill: currentColor; } svg .curve { fill: none; stroke: currentColor; stroke-width: 2;
  stroke-linejoin: round; stroke-linecap: round; }
svg .front { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .best { fill: var(--card); stroke: currentColor; stroke-width: 2.2; }
svg .mark { fill: currentColor; font-weight: 600; paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
svg .point { fill: currentColor; font-size: 13px; font-weight: 600; paint-order: stroke; stroke: var(--card);
  stroke-width: 4px; stroke-linejoin: round; }
.stage { margin-top: 1rem; padding: .95rem 1.2rem 1.1rem; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; box-shadow: var(--shadow); }
.stages { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.stages .stage { margin: 0; }
.stage h4, .stage h5 { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin: 0 0 .5rem;
  font-size: .97rem; font-weight: 600; overflow-wrap: anywhere; }
.stage h4 span, .stage h5 span { color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
.stage h5 { margin-top: 1.1rem; font-size: .9rem; }
.bar { display: flex; height: .7rem; border-radius: 4px; overflow: hidden; background: var(--tint); }
.bar i { display: block; background: var(--c1); } .bar i:first-child { background: var(--c2); }
.bar i:nth-child(n+3) { opacity: .75; } .bar i:nth-child(n+4) { opacity: .55; } .bar i:nth-child(n+5) { opacity: .4; }
.losses { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .1rem 2rem;
  margin: .7rem 0 0; padding: 0; list-style: none; font-size: .86rem; }
.losses li { display: grid; grid-template-columns: minmax(6.5rem, 2fr) minmax(2rem, 1fr) auto; gap: .6rem;
  align-items: center; }
.losses .bar { height: .4rem; } .losses .bar i { background: var(--c1); opacity: 1; }
.losses em { font-style: normal; color: var(--soft); font-variant-numeric: tabular-nums; min-width: 7.5rem;
  text-align: right; }
.facts { display: grid; grid-template-columns: fit-content(45%) 1fr; gap: .15rem 1.2rem; margin: 0; font-size: .88rem; }
.stage * + .facts { margin-top: .7rem; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.sample { margin-top: 1rem; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; box-shadow: var(--shadow); }
.sample h4 { margin: 0 0 .5rem; color: var(--soft); font-size: .85rem; font-weight: 600; }
.sample dl { display: grid; grid-template-columns: minmax(6.5rem, max-content) 1fr; gap: .45rem 1.2rem; margin: 0; }
.sample dt { font-size: .85rem; padding-top: .1rem; } .sample dt:not(.model) { color: var(--soft); }
.sample dt.model { font-weight: 600; }
.sample dd { margin: 0; overflow-wrap: anywhere; }
.sample dd.source { font-weight: 600; }
.sample dd small { color: var(--soft); white-space: nowrap; margin-inline-start: .6em; }
.none { color: var(--soft); font-style: italic; }
details { margin-top: 1rem; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
footer { margin-top: 3.5rem; padding-bottom: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 34rem) {
  header.top { padding-top: 1.8rem; }
  tbody th small { display: block; margin: 0 0 0 1.2em !important; }
  .sample dl { grid-template-columns: 1fr; gap: .1rem; } .sample dd + dt { margin-top: .5rem; }
}
@media print { nav { display: none; } .stage, figure, .sample { break-inside: avoid; box-shadow: none; } }
"""

SCRIPT = """
for (const header of document.querySelectorAll("th button")) {
  header.addEventListener("click", () => {
    const cell = header.closest("th"), table = cell.closest("table"), body = table.tBodies[0];
    const descending = cell.getAttribute("aria-sort") !== "descending";
    for (const other of cell.parentNode.children) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = row => row.cells[cell.cellIndex].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return descending ? -order : order;
    });
    body.append(...rows);
  });
}
"""
