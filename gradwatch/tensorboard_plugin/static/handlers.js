// What the pointer and the keys do on a figure of the time line.

import {el} from './dom.js';
import {cellAt, cellText} from './heatmap.js';
import {keyed} from './keys.js';

/** Handlers of plotly's events. `run()` is what the figure shows; `set` changes the state. */
export function pointing(run, set, tip) {
  const cell = ({points}) => points.find(({data}) => data.type === 'heatmap')?.pointIndex; // [row, column]
  return {
    click: (event) => {
      const {cells} = run();
      const at = cell(event);
      if (at) set({step: cells.steps[at[1]], layer: cells.firsts[at[0]]});
      else set({step: Math.max(cells.lo, Math.min(cells.hi, Math.round(event.points[0].x)))});
    },
    hover: (event) => {
      const at = cell(event);
      if (at) show(tip, event.event, cellText(run().cells, ...at));
    },
    unhover: () => (tip.hidden = true),
    doubleclick: () => set({lo: null, hi: null}),
    relayout: (change) => {
      const [from, to] = [change['xaxis.range[0]'], change['xaxis.range[1]']];
      if (from === undefined) return;
      const {cells} = run();
      const lo = Math.max(cells.lo, Math.ceil(from));
      set({lo, hi: Math.max(lo, Math.min(cells.hi, Math.floor(to)))});
    },
  };
}

function show(tip, {clientX, clientY}, {layer, step, value}) {
  tip.replaceChildren(el('b', {textContent: layer}), el('span', {textContent: step}), el('span', {textContent: value}));
  tip.hidden = false;
  const left = Math.min(clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.transform = `translate(${left}px, ${clientY + 16}px)`;
}

/** A handler of keys, which says in words where it has come to. */
export function typing(run, chosen, set, live) {
  return (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const {cells} = run();
    const change = keyed(event.key, event.shiftKey, cells, chosen());
    if (!change) return;
    event.preventDefault();
    set(change);
    const {layer, step, value} = cellText(cells, ...cellAt(cells, chosen().layer, chosen().step));
    live.textContent = `${layer}, ${step}: ${value}`;
  };
}
