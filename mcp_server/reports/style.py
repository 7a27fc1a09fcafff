"""The style sheet of reports and of the local page, and the policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1d2127; --muted: #59636e; --rule: #d8dde3; --card: #f5f7f9;
  --train: #2563eb; --val: #d9480f; --rate: #2b8a3e; --third: #7c3aed; --good: #237a35; --warn: #a34a00; --bad: #c92a2a; }
@media (prefers-color-scheme: dark) { :root { --bg: #13171b; --fg: #e4e8ec; --muted: #9aa5b1; --rule: #343c45;
  --card: #1c2228; --train: #7aaaff; --val: #ffa15c; --rate: #69db7c; --third: #b69cff; --good: #7ddf8e; --warn: #ffc078;
  --bad: #ff9090; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 58rem; padding: 1.25rem 1rem 3rem; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.35rem; margin: 0 0 .35rem; line-height: 1.3; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); }
p { margin: .4rem 0; } a { color: var(--train); } .muted, .empty { color: var(--muted); } .small { font-size: .87rem; }
code, pre { font: .87em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: .6rem .75rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem; font-size: .82rem;
  font-weight: 600; vertical-align: middle; white-space: nowrap; }
.completed, .better { color: var(--good); } .working, .queued { color: var(--train); }
.failed, .lost, .error, .worse { color: var(--bad); } .cancelled, .paused, .warning { color: var(--warn); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; padding: 0; }
.cards > div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .5rem .75rem; }
.cards dt { color: var(--muted); font-size: .82rem; } .cards dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
.cards dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--muted); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--rule); }
thead th { color: var(--muted); font-weight: 500; } tbody th { font-weight: 500; } td { font-variant-numeric: tabular-nums; }
table.config tbody th { width: 15rem; font: .95em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
table.config td { overflow-wrap: anywhere; }
ul.jobs { list-style: none; margin: 1rem 0; padding: 0; font-size: .92rem; font-variant-numeric: tabular-nums; }
ul.jobs li { display: grid; grid-template-columns: minmax(0, 1fr) 6.5rem 7.5rem 4.5rem 100px 8rem; gap: .2rem 1rem;
  align-items: center; padding: .55rem 0; border-top: 1px solid var(--rule); }
ul.jobs a { font-weight: 600; overflow-wrap: anywhere; } progress { width: 100%; height: .35rem; accent-color: var(--train); }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--muted); }
.sample { border: 1px solid var(--rule); border-radius: 8px; padding: .4rem .75rem; margin: .6rem 0; display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: .2rem .75rem; }
.sample > div { min-width: 0; } .sample b { font-size: .82rem; color: var(--muted); font-weight: 500; }
figure { margin: 1rem 0; } figcaption { font-size: .88rem; } figcaption b { margin-right: .75rem; }
.key { margin-right: .9rem; white-space: nowrap; color: var(--muted); }
.key::before { content: ""; display: inline-block; width: .8rem; height: .2rem; margin-right: .35rem; vertical-align: middle;
  background: currentColor; border-radius: 2px; }
.key.faint::before { background: var(--train); opacity: .35; }
.key.train::before { background: var(--train); } .key.val::before { background: var(--val); }
.key.rate::before { background: var(--rate); } .key.third::before { background: var(--third); }
.key.alert::before { background: var(--bad); width: .2rem; height: .8rem; }
.key.best::before { background: none; border: 2px solid var(--val); width: .75rem; height: .75rem; border-radius: 50%; }
svg { display: block; width: 100%; height: auto; } svg.spark { width: 100px; height: 24px; } svg.narrow { display: none; }
@media (max-width: 36rem) { svg.wide { display: none; } svg.narrow { display: block; } body { padding: 1rem .75rem 2rem; }
  table.config tbody th { width: 10rem; } ul.jobs li { grid-template-columns: minmax(0, 1fr) auto; }
  ul.jobs li > :nth-child(even) { text-align: right; justify-self: end; } }
svg text { fill: var(--muted); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--muted); stroke-width: 1; }
polyline { fill: none; stroke-width: 1.7; stroke-linejoin: round; }
polyline.train { stroke: var(--train); } polyline.val { stroke: var(--val); } polyline.rate { stroke: var(--rate); }
polyline.third { stroke: var(--third); } polyline.faint { stroke: var(--train); opacity: .3; stroke-width: 1; }
.dot.train { fill: var(--train); } .dot.val { fill: var(--val); } .dot.rate { fill: var(--rate); }
.dot.third { fill: var(--third); }
svg .alert line { stroke: var(--bad); stroke-dasharray: 2 3; } svg .alert circle { fill: var(--bad); }
svg .best circle { fill: none; stroke: var(--val); stroke-width: 2; }
svg .best text { fill: var(--fg); paint-order: stroke; stroke: var(--bg); stroke-width: 4px; }
@media print { body { max-width: none; } }
"""


def source(text: str) -> str:
    """A content security policy's name for an inline ``<style>`` or ``<script>`` with exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Whatever a row of the data holds, a report runs no script and loads nothing.
POLICY = f"default-src 'none'; style-src {source(STYLE)}; img-src data:; base-uri 'none'; form-action 'none'"
