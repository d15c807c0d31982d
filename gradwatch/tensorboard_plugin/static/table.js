// The layers of one step in numbers, to be filtered and sorted.

import {badge, SEVERITIES} from './alerts.js';
import {el, visible} from './dom.js';
import {MARKS, markLabel} from './marks.js';
import {count, extent, fromLog, percent, short, whole} from './numbers.js';

const SHOWN = 300; // rows; a filter finds the others

const COLUMNS = [
  {key: 'depth', title: 'Layer', hint: 'in the order of depth, input first'},
  {key: 'norm', title: 'Gradient norm', hint: 'L2 norm before clipping'},
  {key: 'update_ratio', title: 'Update', hint: 'change of the weights by a step, relative to them', text: short},
  {key: 'max_abs', title: 'Largest', hint: 'largest magnitude of an element', text: short},
  {key: 'zero_fraction', title: 'Zeros', hint: 'share of the elements that are exactly zero', text: percent},
  {key: 'nonfinite', title: 'Not finite', hint: 'number of elements that are NaN or inf', text: whole},
  {key: 'param_norm', title: 'Weights', hint: 'L2 norm of the parameters', text: short},
  {key: 'severity', title: 'Alerts', hint: 'the worst of what is still going on'},
];

const ORDER = {nan: Infinity, inf: 1e9, zero: -1e9, none: -Infinity}; // where what is on no scale sorts

/** The rows of an answer to ./step whose names hold `find`, in the order asked for. */
function tableRows(answer, sick, {find, sort, reverse}) {
  const needle = find.toLowerCase();
  const all = answer.layers.map((layer, depth) => ({
    depth,
    layer,
    norm: answer.norm[depth],
    state: answer.state[depth],
    severity: sick.get(layer) ?? null,
    ...Object.fromEntries(COLUMNS.filter(({text}) => text).map(({key}) => [key, answer[key]?.[depth] ?? null])),
  }));
  const rank = {
    depth: (row) => row.depth,
    norm: (row) => ORDER[row.state] ?? row.norm,
    severity: (row) => SEVERITIES[row.severity]?.rank ?? -1,
  }[sort] ?? ((row) => row[sort] ?? -Infinity);
  const sign = reverse ? -1 : 1;
  const compare = (a, b) => (rank(a) === rank(b) ? 0 : rank(a) < rank(b) ? -1 : 1);
  const found = all.filter(({layer}) => layer.toLowerCase().includes(needle));
  return found.sort((a, b) => sign * compare(a, b) || a.depth - b.depth);
}

/** The table; `choose(layer)` is called for a row, `order(column)` for a heading. */
export function layerTable(answer, sick, state, choose, order) {
  const sort = COLUMNS.some(({key}) => key === state.sort) ? state.sort : 'depth';
  const found = tableRows(answer, sick, {...state, sort});
  const columns = COLUMNS.filter(({key, text}) => !text || answer[key]);
  const span = extent([answer.norm]) ?? [0, 1];
  const heads = columns.map(({key, title, hint}) => {
    const button = el('button', {type: 'button', title: hint, textContent: title});
    button.onclick = () => order(key);
    const direction = key !== sort ? 'none' : state.reverse ? 'descending' : 'ascending';
    return el('th', {scope: 'col', 'aria-sort': direction, className: key === 'depth' ? '' : 'right'}, button);
  });
  const body = found.slice(0, SHOWN).map((row) => tableRow(row, columns, span, row.layer === state.layer, choose));
  const caption = `${count(found.length, 'layer')}${found.length > SHOWN ? `, the first ${SHOWN} shown` : ''}`;
  return el(
    'table',
    {className: 'layers'},
    el('caption', {textContent: caption}),
    el('thead', {}, el('tr', {}, ...heads)),
    el('tbody', {}, ...body),
  );
}

function tableRow(row, columns, span, chosen, choose) {
  const cells = columns.map(({key, text}) => {
    if (key === 'depth') {
      const button = el('button', {type: 'button', textContent: visible(row.layer), title: visible(row.layer)});
      return el('th', {scope: 'row'}, button);
    }
    if (key === 'norm') return normCell(row, span);
    if (key === 'severity') return el('td', {className: 'right'}, row.severity ? badge(row.severity) : '');
    return el('td', {className: 'right', textContent: row[key] === null ? '–' : text(row[key])});
  });
  const line = el('tr', {className: chosen ? 'chosen' : ''}, ...cells);
  line.onclick = () => choose(row.layer);
  return line;
}

function normCell({norm, state}, [low, high]) {
  const mark = MARKS.find((one) => one.state === state);
  if (mark) return el('td', {className: 'right norm'}, markLabel(mark));
  const bar = el('span', {className: 'length', 'aria-hidden': 'true'});
  bar.style.width = `${Math.round(4 + (76 * (norm - low)) / Math.max(high - low, 1))}px`;
  return el('td', {className: 'right norm'}, el('span', {className: 'track'}, bar), fromLog(norm));
}
