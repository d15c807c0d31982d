// The time line by keyboard: what each key changes of the state.

import {columnOf} from './numbers.js';

/** The change that `key` asks for, or null. `cells` is what is drawn, `shown` the step and layer that are chosen. */
export function keyed(key, many, cells, shown) {
  const by = many ? 10 : 1;
  const column = columnOf(cells.steps, shown.step);
  const row = cells.row.get(shown.layer) ?? 0;
  const within = (at, length) => Math.max(0, Math.min(length - 1, at));
  const step = (at) => ({step: cells.steps[within(at, cells.steps.length)]});
  const layer = (at) => ({layer: cells.firsts[within(at, cells.firsts.length)]});
  switch (key) {
    case 'ArrowLeft':
      return step(column - by);
    case 'ArrowRight':
      return step(column + by);
    case 'ArrowUp':
      return layer(row - by);
    case 'ArrowDown':
      return layer(row + by);
    case 'Home':
      return step(0);
    case 'End':
      return step(cells.steps.length - 1);
    case '+':
    case '=':
      return around(cells, shown.step, 1 / 4);
    case '-':
      return around(cells, shown.step, 1);
    case 'Escape':
    case '0':
      return {lo: null, hi: null};
    default:
      return null;
  }
}

function around({lo, hi}, step, share) {
  const half = Math.max(1, Math.round((hi - lo) * share));
  return {lo: Math.max(0, step - half), hi: step + half};
}
