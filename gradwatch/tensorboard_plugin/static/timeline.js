// One run over time, everything on one axis: alerts, layers, the total norm, clipping.

import {isOpen, laneTraces, onsetTrace, sick} from './alerts.js';
import {coefficientTrace, totalAxis, totalTraces} from './clip.js';
import {ending, literal} from './dom.js';
import {cellAt, heatmapTrace, layerTicks} from './heatmap.js';
import {markTraces} from './marks.js';
import {edges} from './numbers.js';
import {axis, base, caption, stack, upright} from './plot.js';

const LANE = 20;
const GAP = 26;
const TOTAL = 84;
const COEFFICIENT = 56;
const MARGIN = {t: 24, r: 12, b: 38};
const MONOSPACE = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace';
const CHARACTER = 6.7; // px of a letter beside the heatmap

/** The layout that the figures of all runs share, so that they are aligned: heights, left margin, axes. */
export function frame(every, rules, width) {
  const layers = every.reduce((most, {layers}) => Math.max(most, layers.length), 1);
  const heat = Math.round(Math.min(440, Math.max(170, 20 * layers)));
  const prefix = sharedPrefix(every.flatMap(({layers: names}) => names));
  const characters = Math.min(width < 620 ? 16 : 30, longest(every, rules, prefix));
  const clipped = every.some(({clip}) => clip);
  const heights = [...(rules.length ? [LANE * rules.length] : []), heat, TOTAL, ...(clipped ? [COEFFICIENT] : [])];
  const left = Math.ceil(24 + characters * CHARACTER);
  const plot = width - left - MARGIN.r;
  return {heights, heat, prefix, characters, left, rules, width, plot, total: totalAxis(every)};
}

/** What all names begin with, in whole parts; it need not stand beside every row. */
function sharedPrefix(names) {
  const parts = names[0].split('.').slice(0, -1);
  const begins = (i) => names.every((name) => name.startsWith(`${parts.slice(0, i + 1).join('.')}.`));
  const shared = parts.findIndex((_, i) => !begins(i));
  const kept = parts.slice(0, shared < 0 ? parts.length : shared);
  return names.length > 1 && kept.length ? `${kept.join('.')}.` : '';
}

function longest(every, rules, prefix) {
  const names = [...rules, ...every.flatMap(({layers}) => layers.map((layer) => layer.slice(prefix.length)))];
  return names.reduce((most, name) => Math.max(most, ending(name, 30).length), 6);
}

/** The figure: traces and layout for plotly. `shown` is {step, layer} of the cross-hair. */
export function timeline(cells, found, shared, colourRange, colours, colour, shown) {
  const {heights, heat, rules, left, width, plot} = shared;
  const {domains, total} = stack(heights, GAP);
  const x = edges(cells.steps, cells.ends);
  const [alertDomain, ...rest] = rules.length ? domains : [null, ...domains];
  const [heatDomain, totalDomain, clipDomain] = rest;
  const size = {width: plot, height: heat};
  const layout = {
    ...base(colours, width, total + MARGIN.t + MARGIN.b, {...MARGIN, l: left}),
    xaxis: axis(colours, {
      range: [x[0], x.at(-1)],
      fixedrange: false,
      anchor: clipDomain ? 'y4' : 'y3',
      showgrid: false,
      ticks: 'outside',
      tickcolor: colours.line,
      tickformat: ',d',
      nticks: Math.max(3, Math.floor(plot / 110)),
      title: {text: 'step', standoff: 6},
    }),
    yaxis2: axis(colours, {
      domain: heatDomain,
      range: [cells.layers.length - 0.5, -0.5],
      showgrid: false,
      ...layerTicks(cells.layers.map((layer) => layer.slice(shared.prefix.length)), heat, shared.characters),
      tickfont: {family: MONOSPACE, size: 10.5, color: colours.ink},
      ticklabelstandoff: 10,
    }),
    yaxis3: axis(colours, {domain: totalDomain, ...shared.total, ticklabelstandoff: 10}),
    shapes: shapesOf(cells, found, shared, colours, shown),
    annotations: [
      caption(literal(`Layers${shared.prefix && ` ${shared.prefix}…`}, input first`), heatDomain[1], colours),
      caption(cells.clip ? 'Total norm, and where it is clipped' : 'Total norm', totalDomain[1], colours),
    ],
  };
  const traces = [
    heatmapTrace(cells, x, colourRange, 'y2'),
    ...markTraces({...cells, x}, size, colours, 'y2'),
    onsetTrace(found, cells.row, heat / cells.layers.length, colours, 'y2'),
    ...totalTraces(cells, colour, colours, 'y3'),
  ];
  if (alertDomain) {
    layout.yaxis = axis(colours, {
      domain: alertDomain,
      range: [rules.length - 0.5, -0.5],
      tickvals: rules.map((_, i) => i),
      ticktext: rules.map((rule) => literal(rule.replaceAll('_', ' '))),
      ticklabelstandoff: 10,
    });
    layout.annotations.push(caption(found.length ? 'Alerts' : 'Alerts: none', alertDomain[1], colours));
    const begun = found.filter(({start}) => start <= cells.hi);
    traces.push(...laneTraces(begun, rules, cells.hi, colours, 'y'));
  }
  if (clipDomain) {
    const scale = {range: [-0.05, 1.1], tickvals: [0, 0.5, 1], ticklabelstandoff: 10};
    layout.yaxis4 = axis(colours, {domain: clipDomain, ...scale});
    layout.annotations.push(caption('Clip coefficient, smallest', clipDomain[1], colours));
    if (cells.clip) traces.push(coefficientTrace(cells, colour, 'y4'));
  }
  return {traces, layout};
}

/** What lies over the figure: what is ill, since when, and the chosen step and layer. */
export function shapesOf(cells, found, {plot}, colours, shown) {
  const ill = [...gutter(cells, found, plot, colours), ...onsets(found, cells, colours)];
  return [...ill, ...crossHair(cells, shown, colours)];
}

/** The chosen step and layer as thin lines. */
function crossHair(cells, {step, layer}, colours) {
  const [i, j] = cellAt(cells, layer, step);
  const line = {color: colours.ink, width: 1};
  const inside = step >= cells.steps[0] && step <= cells.ends.at(-1);
  const at = cells.steps[j] <= step && step <= cells.ends[j] ? cells.centres[j] : step;
  const row = {type: 'rect', name: 'layer', xref: 'paper', yref: 'y2', x0: 0, x1: 1, y0: i - 0.5, y1: i + 0.5};
  return [
    ...(inside ? [upright(at, line)] : []),
    ...(cells.row.has(layer) ? [{...row, line, fillcolor: 'rgba(0,0,0,0)'}] : []),
  ];
}

/** Beside the names, a bar for every layer that something is wrong with now. */
function gutter(cells, found, plot, colours) {
  const worst = sick(found);
  const bars = [];
  for (const [layer, i] of cells.row) {
    const severity = worst.get(layer);
    const last = bars.at(-1);
    if (severity && last?.severity === severity && i <= last.to) last.to = i + 1;
    else if (severity) bars.push({severity, from: i, to: i + 1});
  }
  return bars.map(({severity, from, to}) => ({
    type: 'rect',
    name: `sick: ${severity}`,
    xref: 'paper',
    yref: 'y2',
    x0: -8 / plot,
    x1: -3 / plot,
    y0: from - 0.5,
    y1: to - 0.5,
    line: {width: 0},
    fillcolor: colours[severity],
  }));
}

/** Where each rule first found what is still wrong: a line through all rows of the figure. */
function onsets(found, {lo, hi}, colours) {
  const seen = new Set();
  return found
    .filter((episode) => isOpen(episode) && episode.severity !== 'info' && episode.start >= lo && episode.start <= hi)
    .filter(({rule}) => !seen.has(rule) && seen.add(rule))
    .map(({start, severity}) => upright(start, {color: colours[severity], width: 1.2, dash: 'dot'}, 'since'));
}
