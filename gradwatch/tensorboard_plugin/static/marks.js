// What has no place on a logarithmic scale: NaN, inf, zero and no gradient, each with a glyph and a flat colour.

/** The bits of a cell's marks, the worst first. */
export const MARKS = [
  {bit: 1, state: 'nan', name: 'NaN', symbol: 'x-thin', glyph: '×', colour: 'nan'},
  {bit: 2, state: 'inf', name: 'inf', symbol: 'triangle-up-open', glyph: '△', colour: 'inf'},
  {bit: 4, state: 'zero', name: 'zero', symbol: 'circle-open', glyph: '○', colour: 'zero'},
  {bit: 8, state: 'none', name: 'no gradient', symbol: 'line-ew', glyph: '–', colour: 'absent'},
];

const APART = 11; // px between two glyphs: nearer ones would cover each other

/** The marks that occur in the cells `marks` (rows of bits). */
export function present(marks) {
  let all = 0;
  for (const row of marks) for (const bits of row) all |= bits;
  return MARKS.filter(({bit}) => all & bit);
}

/** Flat cells where there is no norm to colour: [row][column] holding an index into MARKS, null elsewhere. */
function flat(norm, marks) {
  return marks.map((row, i) =>
    Array.from(row, (bits, j) => {
      const index = Number.isNaN(norm[i][j]) ? MARKS.findIndex(({bit}) => bits & bit) : -1;
      return index < 0 ? null : index;
    }),
  );
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
 * `cells` has norm and marks (rows of typed arrays), x (edges of the columns) and their centres; `size` is the width and
 * height of the heatmap in px.
 */
export function markTraces(cells, size, colours, yaxis) {
  const found = present(cells.marks);
  if (!found.length) return [];
  const last = MARKS.length - 1;
  const shades = MARKS.flatMap(({colour}, k) => [
    [k / MARKS.length, colours[colour]],
    [(k + 1) / MARKS.length, colours[colour]],
  ]);
  const flats = {
    type: 'heatmap',
    name: 'marks',
    x: cells.x,
    z: flat(cells.norm, cells.marks),
    zmin: -0.5,
    zmax: last + 0.5,
    colorscale: shades,
    showscale: false,
    opacity: 0.35,
    hoverongaps: false,
    hoverinfo: 'none',
    yaxis,
  };
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
  return [flats, ...glyphs];
}
