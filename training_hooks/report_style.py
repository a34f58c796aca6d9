"""The style sheet of a round's report; it follows the reader's light or dark."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #16181d; --faint: #5c6470; --rule: #dde1e7;
  --good: #0b7a4b; --bad: #b3400a; --line: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14161a; --card: #1d2026; --ink: #e8ebf0; --faint: #a0a8b5; --rule: #363b45;
    --good: #4fd18f; --bad: #ff9d5c; --line: #56b4e9;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 24px 16px 64px; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 20px 0 8px; }
p { margin: 0 0 8px; }
bdi { overflow-wrap: anywhere; }
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 20px; margin: 16px 0; overflow-x: auto;
}
section.promoted { border-top: 6px solid var(--good); }
section.kept { border-top: 6px solid var(--bad); }
.faint, figcaption { color: var(--faint); }
.good { color: var(--good); }
.bad { color: var(--bad); }
ul { padding-left: 20px; margin: 8px 0 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
th:first-child, .words th, .words td { text-align: left; vertical-align: top; }
tbody th { font-weight: 400; }
tr:last-child > * { border-bottom: 0; }
figure { margin: 0; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 20px; }
.curve figcaption { display: flex; justify-content: space-between; gap: 12px; font-size: 0.875rem; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; }
svg.interval { max-width: 600px; }
svg text { fill: var(--faint); font-size: 11px; }
svg .axis { stroke: var(--rule); }
svg .zero { stroke: var(--faint); stroke-dasharray: 3 3; }
svg .range { stroke: var(--line); stroke-width: 6; stroke-linecap: round; stroke-opacity: 0.45; }
svg .mean { fill: var(--line); }
svg path { fill: none; stroke: var(--line); stroke-linejoin: round; stroke-linecap: round; }
svg .raw { stroke-opacity: 0.3; }
svg .line { stroke-width: 2; }
.case { border-top: 1px solid var(--rule); padding: 16px 0 8px; }
.case:first-of-type { border-top: 0; }
.panels {
  display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; margin: 8px 0;
}
.panels img { width: 100%; height: auto; display: block; border-radius: 6px; }
.panels figcaption { font-size: 0.875rem; }
@media (max-width: 640px) { .panels { grid-template-columns: 1fr; } }
"""
