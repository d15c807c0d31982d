// Layers by steps: log10 of every layer's gradient norm, input on top.

import {columnOf, extent, fromLog, power, rows} from './numbers.js';
import {el, ending, literal, visible} from './dom.js';
import {MARKS, markLabel, present} from './marks.js';

const SCALE = 'Viridis'; // perceptually even, and told apart by colour-blind readers
const VIRIDIS = '#440154, #482878, #3e4989, #31688e, #26828e, #1f9e89, #35b779, #6ece58, #b5de2b, #fde725';

const ALWAYS = [-4, 2]; // decades: what a healthy run's norms are about, so that its noise is no picture of a fault
const MOST_SPAN = 16; // decades: beyond, one explosion would leave all else one colour

/** An answer to ./overview made ready to draw. */
export function cellsOf(answer) {
  const {steps, ends, names, counts} = answer;
  const norm = counts.length && steps.length ? rows(answer.norm) : [];
  const rowOf = counts.flatMap((n, i) => Array(n).fill(i));
  return {
    ...answer,
    norm,
    marks: norm.length ? rows(answer.marks) : [],
    centres: steps.map((step, j) => (step + ends[j]) / 2),
    row: new Map(names.map((layer, k) => [layer, rowOf[k]])),
    firsts: counts.map((_, i) => names[rowOf.indexOf(i)]),
  };
}

/** The range of the colours, one for all runs that are shown. */
export function colourRange(every) {
  const found = extent(every.flatMap(({norm}) => norm)) ?? [-2, 2];
  const values = every.flatMap(({norm}) => norm.flatMap((row) => Array.from(row.filter((_, j) => j % 7 === 0))));
  const finite = values.filter(Number.isFinite).sort((a, b) => a - b);
  const middle = finite.length ? finite[finite.length >> 1] : 0;
  const [low, high] = [Math.max(found[0], middle - MOST_SPAN / 2), Math.min(found[1], middle + MOST_SPAN / 2)];
  return [Math.min(low, ALWAYS[0]), Math.max(high, ALWAYS[1])];
}

export function heatmapTrace(cells, x, [zmin, zmax], yaxis) {
  return {
    type: 'heatmap',
    name: 'norm',
    x,
    z: cells.norm,
    zmin,
    zmax,
    colorscale: SCALE,
    showscale: false,
    zsmooth: false,
    hoverongaps: true,
    hoverinfo: 'none',
    yaxis,
  };
}

/** Names of rows beside the heatmap, as many as there is room for. */
export function layerTicks(layers, height, characters) {
  const every = Math.max(1, Math.ceil((13 * layers.length) / height));
  const tickvals = layers.map((_, i) => i).filter((i) => i % every === 0);
  return {tickvals, ticktext: tickvals.map((i) => literal(ending(layers[i], characters)))};
}

/** One cell in words. */
export function cellText(cells, i, j) {
  const [first, last] = [cells.steps[j], cells.ends[j]];
  const value = cells.norm[i][j];
  const states = MARKS.filter(({bit}) => cells.marks[i][j] & bit).map(({name}) => name);
  const norm = Number.isNaN(value) ? [] : [`norm ${first === last ? '' : 'up to '}${fromLog(value)}`];
  return {
    layer: visible(cells.layers[i]),
    step: first === last ? `step ${first}` : `steps ${first} to ${last}`,
    value: [...norm, ...states].join(', ') || 'nothing recorded',
  };
}

/** The row and column that the heatmap shows for a layer and step. */
export function cellAt(cells, layer, step) {
  return [cells.row.get(layer) ?? 0, columnOf(cells.steps, step)];
}

/** The colours and marks in words, above the heatmap. */
export function legend([low, high], every) {
  const ends = `colours from ${power(Math.round(low))} to ${power(Math.round(high))}`;
  const bar = el('span', {className: 'scale', role: 'img', 'aria-label': ends});
  bar.style.background = `linear-gradient(90deg, ${VIRIDIS})`;
  const marks = present(every.flatMap(({marks}) => marks));
  return [
    el('span', {textContent: 'Gradient norm'}),
    el('span', {className: 'number', textContent: fromLog(low)}),
    bar,
    el('span', {className: 'number', textContent: fromLog(high)}),
    ...marks.map(markLabel),
  ];
}
