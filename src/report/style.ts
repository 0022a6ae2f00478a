// How the page looks, in light and dark, on paper and on a phone.

export const style = `
:root {
  --paper: #fff; --ink: #1c2024; --soft: #5a6169; --line: #d9dde1; --panel: #f5f7f8; --accent: #1f66b8;
  --other: #b34a00; --cool: #1f6fd0; --warm: #d9620a; --good: #18693a; --bad: #b3261e;
  --plot-background: var(--paper);
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --soft: #a3abb3; --line: #363c42; --panel: #1d2226; --accent: #6cb0ff;
    --other: #ffa14f; --cool: #4f9dff; --warm: #ff8d3a; --good: #6fd08f; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; print-color-adjust: exact; }
html { scrollbar-gutter: stable; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); break-after: avoid; }
p { max-width: 46rem; margin: .5rem 0; }
.how, figcaption, th, .text { color: var(--soft); font-size: .9rem; }
.controls { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0; }
.large { font-size: 1.5rem; font-weight: 600; margin: .5rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: .5rem 0; min-width: 0; break-inside: avoid; }
figure svg { display: block; max-width: 100%; font-family: inherit; overflow: visible; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; overflow-wrap: normal; }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; text-align: left; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.text, .passage { white-space: pre-wrap; line-height: 1.8; }
mark { background: color-mix(in srgb, var(--accent) 25%, transparent); color: var(--ink); }
pre { background: var(--panel); padding: .75rem; border-radius: .5rem; white-space: pre-wrap; }
select, input, textarea, button { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--soft); border-radius: .25rem; padding: .3rem .5rem; max-width: 100%; }
form { display: flex; flex-wrap: wrap; gap: .75rem 1rem; align-items: end; margin: 1rem 0; }
form label { color: var(--soft); font-size: .9rem; min-width: 0; }
form label > * { display: block; }
form .wide { flex: 1 1 100%; }
.wide > input, .wide > textarea { width: 100%; }
input[type="number"] { width: 7rem; }
button { background: var(--accent); color: var(--paper); border-color: var(--accent); cursor: pointer; }
button:disabled { background: var(--panel); color: var(--soft); border-color: var(--line); cursor: default; }
a { color: var(--accent); }
`;
