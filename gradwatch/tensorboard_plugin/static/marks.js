// What has no place on a logarithmic scale: NaN, inf, zero and no gradient, each with a glyph and a flat colour.

import {el} from './dom.js';

/** The bits of a cell's marks, the worst first. */
export const MARKS = [
  {bit: 1, state: 'nan', name: 'NaN', symbol: 'x-thin', glyph: '×', colour: 'nan'},
  {bit: 2, state: 'inf', name: 'inf', symbol: 'triangle-up-open', glyph: '△', colour: 'inf'},
  {bit: 4, state: 'zero', name: 'zero', symbol: 'circle-open', glyph: '○', colour: 'zero'},
  {bit: 8, state: 'none', name: 'no gradient', symbol: 'line-ew', glyph: '–', colour: 'absent'},
];

const APART = 11; // px between two glyphs: nearer ones would cover each other

/** A mark in words, with its glyph. */
export function markLabel({state, glyph, name}) {
  return el('span', {className: `mark ${state}`}, el('b', {textContent: glyph, 'aria-hidden': 'true'}), name);
}

/** The marks that occur in the cells `marks` (rows of bits). */
export function present(marks) {
  let all = 0;
  for (const row of marks) for (const bits of row) all |= bits;
  return MARKS.filter(({bit}) => all & bit);
}

/** Stretches without any norm to colour, by the worst of their marks: index into MARKS, row, first and last column. */
function stretches(norm, marks) {
  const found = [];
  marks.forEach((row, i) => {
    let open = null;
    row.forEach((bits, j) => {
      const mark = Number.isNaN(norm[i][j]) ? MARKS.findIndex(({bit}) => bits & bit) : -1;
      if (open?.mark === mark) open.to = j;
      else open = mark < 0 ? null : {mark, row: i, from: j, to: j};
      if (open?.from === j) found.push(open);
    });
  });
  return found;
}

/** Where the glyphs of one mark go: all that stand alone, and every few pixels of those that crowd. */
function places(marks, bit, columnWidth, rowHeight) {
  const taken = new Set();
  const found = [];
  marks.forEach((row, i) => {
    const y = Math.floor((i * rowHeight) / APART);
    row.forEach((bits, j) => {
      const place = y * 1e6 + Math.floor((j * columnWidth) / APART);
      if (bits & bit && !taken.has(place)) {
        taken.add(place);
        found.push([i, j]);
      }
    });
  });
  return found;
}

/**
 * The traces of all marks of a heatmap.
 *
 * `cells` has norm and marks (rows of typed arrays), x (edges of the columns) and their centres; `size` is the width
 * and height of the heatmap in px.
 */
export function markTraces(cells, size, colours, yaxis) {
  const found = present(cells.marks);
  if (!found.length) return [];
  const columnWidth = size.width / cells.centres.length;
  const rowHeight = size.height / cells.marks.length;
  const glyphs = found.map(({bit, name, symbol, colour}) => {
    const at = places(cells.marks, bit, columnWidth, rowHeight);
    return {
      type: 'scatter',
      mode: 'markers',
      name,
      x: at.map(([, j]) => cells.centres[j]),
      y: at.map(([i]) => i),
      hoverinfo: 'skip',
      marker: {symbol, size: bit === 8 ? 5 : 7, color: colours[colour], line: {width: 1.5, color: colours[colour]}},
      yaxis,
    };
  });
  const shared = stretches(cells.norm, cells.marks);
  const flats = found.map((mark) => {
    const own = shared.filter((one) => MARKS[one.mark] === mark);
    return {
      type: 'scatter',
      mode: 'lines',
      name: `${mark.name}, cells`,
      x: own.flatMap(({from, to}) => [cells.x[from], cells.x[to + 1], null]),
      y: own.flatMap(({row}) => [row, row, null]),
      line: {color: colours[mark.colour], width: rowHeight, simplify: false},
      opacity: 0.35,
      hoverinfo: 'skip',
      yaxis,
    };
  });
  return [...flats, ...glyphs];
}
