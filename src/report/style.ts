// How the page looks, in light and dark, on paper and on a phone.

export const style = `
:root {
  --paper: #fff; --ink: #1c2024; --soft: #5a6169; --line: #d9dde1; --panel: #f5f7f8;
  --accent: #1f66b8; --other: #b34a00; --cool: #1f6fd0; --warm: #d9620a; --good: #18693a; --bad: #b3261e;
  --plot-background: var(--paper);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --soft: #a3abb3; --line: #363c42; --panel: #1d2226;
    --accent: #6cb0ff; --other: #ffa14f; --cool: #4f9dff; --warm: #ff8d3a; --good: #6fd08f; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
html { scrollbar-gutter: stable; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; }
.how, figcaption, .legend { color: var(--soft); font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.tile { flex: 1 1 9rem; background: var(--panel); border-radius: .5rem; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: .5rem 0; min-width: 0; break-inside: avoid; }
figure svg { display: block; max-width: 100%; font-family: inherit; overflow: visible; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: .15rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.text, pre, code { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
td.text { min-width: 11rem; color: var(--soft); white-space: pre-wrap; }
mark { background: color-mix(in srgb, var(--accent) 25%, transparent); color: var(--ink); border-radius: .15rem; }
pre { background: var(--panel); padding: .75rem; border-radius: .5rem; white-space: pre-wrap; margin: .5rem 0; }
.passage { line-height: 2; white-space: pre-wrap; }
.passage span { border-radius: .15rem; padding: .1rem 0; }
select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--soft); border-radius: .3rem; padding: .2rem; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .5rem 0; }
.scale { display: inline-block; width: 6rem; height: .8rem; vertical-align: middle; margin: 0 .4rem;
  background: linear-gradient(to right, var(--cool), transparent, var(--warm)); }
@media print {
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; } tr { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
