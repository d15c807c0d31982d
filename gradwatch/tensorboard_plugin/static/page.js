// The page's skeleton: what is there before any data, by name.

import {el} from './dom.js';

function choice(label, id) {
  const select = el('select', {id});
  return {select, field: el('label', {className: 'field', htmlFor: id}, el('span', {textContent: label}), select)};
}

function panel(name, ...children) {
  const title = el('h2', {id: `${name}-title`});
  const plot = el('div', {className: 'plot', id: `${name}-plot`});
  const words = {className: `panel ${name}`, 'aria-labelledby': title.id};
  const root = el('section', words, el('header', {}, title), ...children, plot);
  return {root, title, plot};
}

const HELP =
  'Click a cell for its step and layer; drag to zoom, double click to zoom out. ' +
  'Keys: arrows move, + and − zoom, Escape zooms out.';

export function skeleton() {
  const run = choice('Run', 'run');
  const other = choice('Compare with', 'other');
  const find = el('input', {id: 'find', type: 'search', placeholder: 'part of a name', autocomplete: 'off'});
  find.spellcheck = false;
  const zoomOut = el('button', {type: 'button', className: 'chip', title: 'Show all steps (double click, Escape)'});
  zoomOut.hidden = true;
  const link = el('button', {type: 'button', textContent: 'Copy link', title: 'Copy a link to what is shown'});
  const size = el('span', {className: 'size'});
  const bar = el(
    'div',
    {className: 'bar', role: 'toolbar', 'aria-label': 'What to show'},
    run.field,
    other.field,
    el('label', {className: 'field', htmlFor: 'find'}, el('span', {textContent: 'Layers'}), find),
    zoomOut,
    el('span', {className: 'space'}),
    size,
    link,
  );
  const notice = el('div', {className: 'notice', role: 'status', hidden: true});
  const live = el('div', {className: 'unseen', role: 'status', 'aria-live': 'polite'});
  const verdicts = el('section', {className: 'verdicts', 'aria-label': 'Verdict'});
  const legend = el('div', {className: 'legend'});
  const figures = el('div', {className: 'figures'});
  const keys = el('p', {
    className: 'note keys',
    id: 'keys',
    textContent: HELP,
  });
  const words = {className: 'panel overview', 'aria-label': 'All layers over time'};
  const overview = el('section', words, legend, figures, keys);
  const step = panel('step');
  const layer = panel('layer');
  const gains = panel('gains');
  gains.summary = el('div');
  gains.root.insertBefore(gains.summary, gains.plot);
  const table = panel('table');
  const alerts = panel('alerts');
  step.facts = el('p', {className: 'note'});
  step.root.insertBefore(step.facts, step.plot);
  const details = el('div', {className: 'details'}, step.root, layer.root);
  const tip = el('div', {className: 'tip', hidden: true, 'aria-hidden': 'true'});
  const content = el('div', {className: 'content'}, verdicts, overview, details, gains.root, table.root, alerts.root);
  const messages = el('div', {className: 'messages'});
  const root = el('main', {className: 'gradwatch'}, bar, notice, messages, content, live, tip);
  return {
    ...{root, run: run.select, other: other.select, find, zoomOut, link, size},
    ...{notice, live, messages, content, tip},
    ...{verdicts, legend, figures, step, layer, gains, table, alerts},
  };
}

/** The figures of the time line, one per run, with what stands above them. */
export function figure() {
  const plot = el('div', {
    className: 'plot timeline',
    tabIndex: 0,
    role: 'group',
    'aria-roledescription': 'heatmap',
    'aria-describedby': 'keys',
  });
  const title = el('h3');
  return {root: el('div', {className: 'figure'}, title, plot), plot, title};
}
