"""How the report looks: its colours by day and by night, and its style sheet. Nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {
    "paper": "#fbfcfc",
    "raised": "#eef2f4",
    "ink": "#16212b",
    "muted": "#52616e",
    "line": "#cfd8de",
    "link": "#0a5f80",
    "bundle0": "#0a6a8a",
    "bundle1": "#a8460c",
    "bad": "#a8231b",
    "bad-paper": "#fae4e1",
    "good": "#17653a",
    "good-paper": "#def2e5",
}
DARK = {
    "paper": "#12181d",
    "raised": "#1d262d",
    "ink": "#e5ebef",
    "muted": "#a1b0bb",
    "line": "#35424c",
    "link": "#7ccbe8",
    "bundle0": "#58bfe0",
    "bundle1": "#f0a06c",
    "bad": "#ff9f95",
    "bad-paper": "#3d1b19",
    "good": "#7dd39c",
    "good-paper": "#15321f",
}
SHADE_COUNT = 4  # of the strips of tags; one tag more has the first one's again

_SHEET = """
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1 { font-size: clamp(1.5rem, 1.1rem + 1.8vw, 2.25rem); line-height: 1.15; margin: 0 0 1.25rem; text-wrap: balance; }
h2 { font-size: 1.375rem; line-height: 1.25; margin: 0 0 1rem; }
h3 { font-size: 1.0625rem; margin: 1.5rem 0 0.5rem; }
p, dl, ul { margin: 0 0 1rem; }
p { max-width: 68ch; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
small { display: block; font-size: 0.8125rem; font-weight: 400; color: var(--muted); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.875em; }
th, td, dd, li, code, figcaption { unicode-bidi: isolate; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.good { color: var(--good); }
.bad { color: var(--bad); }
td .good, td .bad { white-space: nowrap; }

.verdict { max-width: none; margin: 0 0 1.5rem; padding: 0.875rem 1.125rem; background: var(--raised); }
.verdict p { margin: 0; }
.verdict ul { margin: 0.5rem 0 0; padding-left: 1.25rem; }
p.verdict.good, .verdict p { font-size: 1.125rem; }
.verdict.good { background: var(--good-paper); }
.verdict.bad { background: var(--bad-paper); }
dt { color: var(--muted); font-size: 0.8125rem; }
dd { margin: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 0.75rem 2.5rem; }
.facts dd { max-width: 22rem; }
.long div { display: grid; grid-template-columns: minmax(8rem, 18rem) minmax(0, 1fr); gap: 0 1rem; }
.long dd { padding: 0.125rem 0; }
.notes { padding: 0.5rem 1rem 0.5rem 2rem; background: var(--raised); }
.long dt { font-size: 0.875rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.25rem 0; }
section { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 2rem; }

/* A shade at the right edge while there is more to the right: the piece of paper that hides it moves with the table. */
.scroll {
  position: relative; overflow-x: auto; margin: 0 0 1.5rem;
  background: linear-gradient(to left, var(--paper) 60%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--line), transparent) right / 1.25rem 100% no-repeat scroll;
}
table { border-collapse: separate; border-spacing: 0; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.5rem; }
th, td { padding: 0.375rem 1.25rem 0.375rem 0; text-align: left; vertical-align: top; }
tr > * { border-top: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0.25rem; }
thead tr > * { border-top: 0; font-size: 0.875rem; vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 600; min-width: 7rem; max-width: 22rem; overflow-wrap: anywhere; }
.tables tbody th { max-width: 15rem; }
tr > :first-child { position: sticky; left: 0; background: var(--paper); }
.number { text-align: right; white-space: nowrap; }
.picture { width: 9rem; min-width: 9rem; padding-top: 0.75rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; align-items: flex-start; }
.tables > * { max-width: 100%; }

svg { display: block; overflow: visible; }
svg text { font-size: 11px; fill: var(--muted); }
.bar { width: 100%; }
.key { display: inline-block; width: 22px; height: 10px; margin-right: 0.375rem; }
.paired { fill: var(--bundle0); }
.dropped { fill: var(--bad); }
.rest { fill: var(--line); }
.grid, .zero { stroke: var(--line); }
.zero { stroke: var(--muted); }
.whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.bundle0 { --own: var(--bundle0); }
.bundle1 { --own: var(--bundle1); }
.curve { fill: none; stroke: var(--own); stroke-width: 1.5; stroke-linejoin: round; }
.bundle1 .curve { stroke-dasharray: 5 2; }
.band { fill: var(--own); opacity: 0.25; }
.dot { fill: var(--own); }
.mark { fill: var(--paper); stroke: var(--bad); stroke-width: 2; }
.reach { fill: transparent; }
a:hover .mark { fill: var(--bad); }

.plots, .pictures { display: grid; gap: 1.5rem; }
.plots { align-items: end; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 40rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.plots figcaption { font-weight: 600; margin-bottom: 0.375rem; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 2px; background: var(--raised); }
.pictures .scroll { margin: 0; }
.pictures h3 { margin: 0.5rem 0 0.25rem; }
.pictures ul { list-style: none; padding: 0; margin: 0; }
.pictures p { margin: 0; color: var(--muted); font-size: 0.8125rem; }
.pictures figure:target { outline: 2px solid var(--bad); outline-offset: 8px; }
.shade { stroke: var(--muted); stroke-width: 0.75; }
.shade0 { fill: var(--paper); }
.shade1 { fill: var(--muted); }
.shade2 { fill: var(--ink); }
.shade3 { fill: var(--link); }
.night { fill: #26323a; }
.day { fill: #f3f5f6; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; margin: 0 0 0.5rem; list-style: none; }

@media (max-width: 30rem) {
  .picture, .wide, th .key { display: none; }
  table { font-size: 0.875rem; }
  .pictures .scroll img { min-width: 40rem; }
  th, td { padding-right: 0.625rem; }
  .long div { grid-template-columns: 1fr; padding: 0.25rem 0; }
}
@media print {
  html { color-scheme: light; font-size: 9pt; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .verdict { break-inside: avoid; }
  .scroll { overflow: visible; background: none; }
  th, td { padding-right: 0.75rem; }
  .number, thead tr > * { white-space: normal; }
  .picture { width: 5rem; min-width: 5rem; }
  .plots, .pictures { grid-template-columns: 1fr 1fr; }
}
"""


def _variables(colours: Mapping[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in colours.items()) + " }"


STYLE = f"""
{_variables(LIGHT)}
@media (prefers-color-scheme: dark) {{ {_variables(DARK)} }}
@media print {{ {_variables(LIGHT)} }}
{_SHEET}"""
