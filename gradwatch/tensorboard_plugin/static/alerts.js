// Alerts as episodes: what is wrong, with which layers, since when and until when.

import {el, ending, literal, visible} from './dom.js';
import {count, whole} from './numbers.js';

export const SEVERITIES = {
  error: {word: 'Error', rank: 2, glyph: '✖'},
  warning: {word: 'Warning', rank: 1, glyph: '▲'},
  info: {word: 'Info', rank: 0, glyph: '●'},
};

/** A severity as a colour, a glyph and a word. */
export function badge(severity, word = SEVERITIES[severity].word) {
  const mark = el('span', {className: 'glyph', textContent: SEVERITIES[severity].glyph, 'aria-hidden': 'true'});
  return el('span', {className: `badge ${severity}`}, mark, word);
}

const SYMBOLS = {
  vanishing: 'triangle-down',
  vanishing_in_time: 'triangle-down',
  underflow: 'triangle-down',
  stalled: 'triangle-down',
  exploding: 'triangle-up',
  update_ratio: 'triangle-up',
  overflow: 'triangle-up',
  not_zeroed: 'triangle-up',
  nonfinite: 'x',
  spike: 'diamond-tall',
  dead: 'circle',
  no_gradient: 'circle',
  saturated: 'square',
};

export const symbol = (rule) => SYMBOLS[rule] ?? 'diamond';

const MOMENTARY = new Set(['spike']); // told when it is over: it opens no episode

/**
 * Alerts grouped into episodes, the worst and earliest first.
 *
 * An alert of severity info closes what its rule had opened for its layers; one that closes nothing stands alone. An
 * error closes what had been a warning of them. Each episode: rule, severity, start, end (null while any layer is still
 * in it), layers, open (those still in it), raised (whether it went on as an error), message, follows.
 */
export function episodes(alerts) {
  const found = [];
  for (const alert of alerts) {
    const layers = alert.layers?.length ? alert.layers : alert.layer ? [alert.layer] : [];
    if (alert.severity === 'info' && close(found, alert, layers)) continue;
    if (alert.severity === 'error') raise(found, alert, layers);
    const over = alert.severity === 'info' || MOMENTARY.has(alert.rule);
    const same = (one) => one.rule === alert.rule && one.start === alert.step && one.severity === alert.severity;
    const opened = found.find(same);
    if (opened && layers.length) {
      opened.layers.push(...layers);
      if (!over) opened.open.push(...layers);
    } else {
      found.push({
        rule: alert.rule,
        severity: alert.severity,
        start: alert.step,
        end: over ? alert.step : null,
        layers: [...layers],
        open: over ? [] : [...layers],
        raised: false,
        message: alert.message,
        follows: alert.follows,
      });
    }
  }
  const rank = ({severity, end}) => 2 * SEVERITIES[severity].rank + (end === null);
  return found.sort((a, b) => rank(b) - rank(a) || a.start - b.start);
}

function close(found, alert, layers) {
  const concerned = found.filter((one) => one.rule === alert.rule && one.end === null);
  for (const one of concerned) {
    one.open = layers.length ? one.open.filter((layer) => !layers.includes(layer)) : [];
    if (!one.open.length) one.end = alert.step;
  }
  return concerned.length > 0;
}

function raise(found, alert, layers) {
  const concerns = ({severity, open}) => severity === 'warning' && open.some((name) => layers.includes(name));
  const warnings = found.filter(concerns);
  close(warnings, alert, layers);
  for (const one of warnings) one.raised = !isOpen(one);
}

export const isOpen = (episode) => episode.end === null;

/** For each layer the worst severity of what it is in now. */
export function sick(found) {
  const worst = new Map();
  for (const {severity, open} of found) {
    for (const layer of open) {
      if (SEVERITIES[severity].rank > (SEVERITIES[worst.get(layer)]?.rank ?? 0)) worst.set(layer, severity);
    }
  }
  return worst;
}

/** Which layers, in a few words: `fc1 … fc8 (8 layers)`. */
export function names(layers) {
  if (!layers.length) return 'whole model';
  if (layers.length < 3) return layers.map((layer) => ending(layer, 40)).join(', ');
  return `${ending(layers[0], 34)} … ${ending(layers.at(-1), 34)} (${count(layers.length, 'layer')})`;
}

function when({start, end, raised}) {
  if (end === null) return `since step ${whole(start)}`;
  if (end === start) return `at step ${whole(start)}`;
  return `steps ${whole(start)} to ${whole(end)}, ${raised ? 'then an error' : 'recovered'}`;
}

/** The rules that occur, the worst first: the lanes of the time line. */
export function lanes(every) {
  return [...new Set(every.flat().map(({rule}) => rule))];
}

/** The time line's bars and glyphs, one lane per rule; `last` is the last step that is shown. */
export function laneTraces(found, rules, last, colours, yaxis) {
  const empty = {type: 'scatter', name: 'lanes', x: [null], y: [null], hoverinfo: 'skip', yaxis}; // no trace, no axis
  const bars = ['info', 'warning', 'error'].flatMap((severity) => {
    const own = found.filter((episode) => episode.severity === severity);
    if (!own.length) return [];
    const lane = ({rule}) => rules.indexOf(rule);
    const line = {
      type: 'scatter',
      mode: 'lines',
      name: `${severity} episodes`,
      x: own.flatMap(({start, end}) => [start, end ?? last, null]),
      y: own.flatMap((one) => [lane(one), lane(one), null]),
      line: {color: colours[severity], width: 5},
      opacity: 0.35,
      hoverinfo: 'skip',
      yaxis,
    };
    const starts = {
      type: 'scatter',
      mode: 'markers',
      name: `${severity} alerts`,
      x: own.map(({start}) => start),
      y: own.map(lane),
      text: own.map((one) => `<b>${literal(one.rule)}</b>, ${when(one)}<br>${literal(names(one.layers))}`),
      hovertemplate: '%{text}<extra></extra>',
      marker: {
        symbol: own.map(({rule}) => symbol(rule)),
        size: 10,
        color: colours[severity],
        line: {width: 1, color: colours.plot},
      },
      yaxis,
    };
    return [line, starts];
  });
  return [empty, ...bars];
}

/** Glyphs on the heatmap, at each concerned layer where its alert was raised. `row` gives a layer's row. */
export function onsetTrace(found, row, rowHeight, colours, yaxis) {
  const taken = new Set();
  const points = [];
  for (const episode of found.filter(({severity}) => severity !== 'info')) {
    for (const layer of episode.layers) {
      const y = row.get(layer);
      const place = `${episode.start} ${episode.rule} ${Math.floor(((y ?? 0) * rowHeight) / 12)}`;
      if (y === undefined || taken.has(place)) continue; // nearer ones would cover each other
      taken.add(place);
      points.push({x: episode.start, y, episode});
    }
  }
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'alerts',
    x: points.map(({x}) => x),
    y: points.map(({y}) => y),
    hoverinfo: 'skip',
    marker: {
      symbol: points.map(({episode}) => symbol(episode.rule)),
      size: 9,
      color: points.map(({episode}) => colours[episode.severity]),
      line: {width: 1.5, color: '#fff'},
    },
    yaxis,
  };
}

/** A list of episodes, with what their alerts said or without; choosing one calls `choose(episode)`. */
export function episodeList(found, choose, {most = 100, messages = false} = {}) {
  const items = found.slice(0, most).map((episode) => {
    const {follows} = episode;
    const button = el(
      'button',
      {type: 'button', className: 'episode', title: visible(episode.message)},
      badge(episode.severity, episode.rule.replaceAll('_', ' ')),
      el('span', {className: 'who', textContent: names(episode.layers)}),
      el('span', {className: 'when', textContent: when(episode)}),
      messages ? el('span', {className: 'said', textContent: visible(episode.message)}) : null,
      follows ? el('span', {className: 'follows', textContent: `may follow from ${visible(follows)}`}) : null,
    );
    button.onclick = () => choose(episode);
    return el('li', {}, button);
  });
  const rest = found.length - most;
  if (rest > 0) items.push(el('li', {className: 'more', textContent: `and ${whole(rest)} more`}));
  return el('ul', {className: 'episodes'}, ...items);
}
