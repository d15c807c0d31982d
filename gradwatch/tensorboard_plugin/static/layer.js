// One layer over time: its norm between the limits it was judged by, its updates, and how its elements are spread.

import {symbol} from './alerts.js';
import {fade} from './clip.js';
import {literal, visible} from './dom.js';
import {MARKS} from './marks.js';
import {columnOf, edges, extent, fromLog, padded, powerTicks, rows, vector} from './numbers.js';
import {axis, base, caption, stack, upright} from './plot.js';

const HEIGHTS = {norm: 150, updates: 76, histogram: 130};

/** The figure of a layer; `answers` are those to ./layer of one run or two, `runs` has {name, colour, dash} of each. */
export function layerFigure(answers, runs, range, step, width, colours) {
  const [first] = answers;
  const updates = answers.some(({update_ratio: ratio}) => ratio?.values.some((value) => value > 0));
  const histogram = first.histogram !== null && first.histogram.steps.length > 0;
  const names = ['norm', ...(updates ? ['updates'] : []), ...(histogram ? ['histogram'] : [])];
  const {domains, total} = stack(names.map((name) => HEIGHTS[name]), 26);
  const domain = Object.fromEntries(names.map((name, i) => [name, domains[i]]));
  const series = answers.map(seriesOf);
  const limits = answers.flatMap(({band}) => [band.low, band.high]).filter((limit) => limit !== null);
  const norms = padded(extent([...series.flatMap(({largest, least}) => [largest, least]), limits]) ?? [-1, 1], 2);
  const anchors = {norm: 'y', updates: 'y2', histogram: 'y3'};
  const layout = {
    ...base(colours, width, total + 24 + 38, {l: 52, r: 12, t: 24, b: 38}),
    dragmode: false,
    xaxis: axis(colours, {
      range,
      anchor: anchors[names.at(-1)],
      showgrid: false,
      tickformat: ',d',
      nticks: 6,
      title: {text: 'step', standoff: 6},
    }),
    yaxis: axis(colours, {domain: domain.norm, range: norms, ...powerTicks(norms), ticklabelstandoff: 6}),
    annotations: [caption('Gradient norm', domain.norm[1], colours)],
    shapes: [
      upright(step, {color: colours.ink, width: 1}),
      ...band(first.band, norms, colours),
    ],
  };
  const traces = answers.flatMap((answer, k) => [
    ...normTraces(answer, series[k], runs[k]),
    beyond(answer, series[k], norms, colours),
    alertTrace(answer, series[k], colours),
  ]);
  if (updates) {
    const log = (value) => (value > 0 ? Math.log10(value) : null);
    const values = answers.map(({update_ratio: ratio}) => (ratio?.values ?? []).map(log));
    const span = padded(extent(values) ?? [-4, -2], 1);
    layout.yaxis2 = axis(colours, {domain: domain.updates, range: span, ...powerTicks(span, 3), ticklabelstandoff: 6});
    layout.annotations.push(caption('Change of the weights per step, relative to them', domain.updates[1], colours));
    traces.push(...answers.map((answer, k) => updateTrace(answer.update_ratio?.steps ?? [], values[k], runs[k])));
  }
  if (histogram) {
    const {steps, edges: bounds, counts} = first.histogram;
    const filled = rows(counts);
    layout.yaxis3 = axis(colours, {domain: domain.histogram, ...occupied(bounds, filled), ticklabelstandoff: 6});
    const whose = answers.length > 1 ? ` of ${visible(runs[0].name)}` : '';
    const words = literal(`Elements of the gradient by magnitude${whose}`);
    layout.annotations.push(caption(words, domain.histogram[1], colours));
    traces.push(histogramTrace(steps, bounds, filled, [colours.plot, runs[0].colour], width - 64));
  }
  return {traces, layout};
}

function seriesOf(answer) {
  return {
    centres: answer.steps.map((step, j) => (step + answer.ends[j]) / 2),
    largest: vector(answer.largest),
    least: vector(answer.least),
    median: vector(answer.median),
    marks: vector(answer.marks),
  };
}

function normTraces({steps, ends}, {centres, largest, least, median}, {name, colour}) {
  const shared = {type: 'scatter', mode: 'lines', x: centres, connectgaps: false};
  return [
    {...shared, name: 'least', y: least, line: {width: 0, color: colour}, hoverinfo: 'skip'},
    {
      ...shared,
      name: 'largest',
      y: largest,
      line: {width: 0.5, color: colour},
      fill: 'tonexty',
      fillcolor: fade(colour, 0.22),
      hoverinfo: 'skip',
    },
    {
      ...shared,
      name: visible(name),
      y: median,
      line: {width: 1.6, color: colour},
      text: steps.map((step, j) => {
        const [low, high] = [fromLog(least[j]), fromLog(largest[j])];
        if (step === ends[j]) return `step ${step}<br>norm ${high}`;
        return `steps ${step} to ${ends[j]}<br>norm ${low} to ${high}`;
      }),
      hovertemplate: '%{text}<extra></extra>',
    },
  ];
}

/** Steps whose norm is on no scale, on the edges of the plot. */
function beyond(answer, {centres, marks}, [low, high], colours) {
  const points = MARKS.flatMap((mark) => {
    const at = Array.from(marks.keys()).filter((j) => marks[j] & mark.bit);
    const every = Math.max(1, Math.ceil(at.length / 60)); // glyphs, not a thick line
    return at.filter((_, k) => k % every === 0).map((j) => ({mark, x: centres[j], step: answer.steps[j]}));
  });
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'not on the scale',
    x: points.map(({x}) => x),
    y: points.map(({mark}) => (mark.bit <= 2 ? high : low)),
    text: points.map(({mark, step}) => `step ${step}<br>${mark.name}`),
    hovertemplate: '%{text}<extra></extra>',
    cliponaxis: false,
    marker: {
      symbol: points.map(({mark}) => mark.symbol),
      size: 7,
      color: points.map(({mark}) => colours[mark.colour]),
      line: {width: 1.5, color: points.map(({mark}) => colours[mark.colour])},
    },
  };
}

function alertTrace({alerts: all, steps, ends}, {centres, largest}, colours) {
  const alerts = all.filter(({step}) => step >= steps[0] && step <= ends.at(-1));
  const near = (step) => columnOf(steps, step);
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'alerts',
    x: alerts.map(({step}) => centres[near(step)]),
    y: alerts.map(({step}) => largest[near(step)]),
    text: alerts.map(
      ({step, rule, message}) => `step ${step}, <b>${literal(rule)}</b><br>${literal(message.slice(0, 120))}`,
    ),
    hovertemplate: '%{text}<extra></extra>',
    marker: {
      symbol: alerts.map(({rule}) => symbol(rule)),
      size: 10,
      color: alerts.map(({severity}) => colours[severity]),
      line: {width: 1.5, color: '#fff'},
    },
  };
}

/** The limits that the layer's alerts were judged by: what lies beyond is shaded. */
function band({low, high}, [bottom, top], colours) {
  const across = {name: 'limit', xref: 'paper', yref: 'y', x0: 0, x1: 1};
  const shade = {type: 'rect', line: {width: 0}, fillcolor: colours.error, opacity: 0.1, layer: 'below'};
  const line = {type: 'line', line: {color: colours.error, width: 1, dash: 'dash'}};
  const limit = (at, beyond) => [
    {...across, ...shade, y0: at, y1: beyond},
    {...across, ...line, y0: at, y1: at},
  ];
  return [...(low === null ? [] : limit(low, bottom)), ...(high === null ? [] : limit(high, top))];
}

function updateTrace(steps, values, {name, colour, dash}) {
  return {
    type: 'scatter',
    mode: steps.length > 100 ? 'lines' : 'lines+markers',
    name: `updates of ${visible(name)}`,
    x: steps,
    y: values,
    text: values.map((value, i) => `step ${steps[i]}<br>${fromLog(value)} of the weights`),
    hovertemplate: '%{text}<extra></extra>',
    line: {color: colour, width: 1.4, dash},
    marker: {color: colour, size: 4},
    yaxis: 'y2',
  };
}

function occupied(bounds, filled) {
  const has = bounds.slice(1).map((_, b) => filled.some((row) => row[b] > 0));
  const [low, high] = [has.indexOf(true), has.lastIndexOf(true)];
  const range = low < 0 ? [bounds[0], bounds.at(-1)] : [bounds[low], bounds[high + 1]];
  return {range, ...powerTicks(range, 5)};
}

/** Of the sampled steps the share of elements in each bucket of magnitude, in at most `most` columns. */
function histogramTrace(steps, bounds, filled, [none, full], most) {
  const each = Math.ceil(steps.length / most);
  const starts = steps.map((_, t) => t).filter((t) => t % each === 0);
  const pooled = starts.map((from) => {
    const rowsHere = filled.slice(from, from + each);
    const counts = bounds.slice(1).map((_, b) => rowsHere.reduce((sum, row) => sum + row[b], 0));
    const all = counts.reduce((sum, value) => sum + value, 0);
    return counts.map((value) => (value > 0 ? value / all : null));
  });
  const firsts = starts.map((t) => steps[t]);
  const lasts = starts.map((t) => steps[Math.min(t + each, steps.length) - 1]);
  return {
    type: 'heatmap',
    name: 'elements',
    x: edges(firsts, lasts),
    y: bounds,
    z: bounds.slice(1).map((_, b) => pooled.map((row) => row[b])),
    hovertemplate: 'step %{x:.0f}<br>about 10^%{y:.2f}<br>%{z:.1%} of the elements<extra></extra>',
    colorscale: [[0, none], [1, full]],
    showscale: false,
    hoverongaps: false,
    yaxis: 'y3',
  };
}
