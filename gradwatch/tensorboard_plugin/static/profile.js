// One step along the depth of the network: where on its way back the gradient is lost or grows.

import {ending, literal, visible} from './dom.js';
import {MARKS} from './marks.js';
import {extent, fromLog, padded, powerTicks} from './numbers.js';
import {axis, base, upright} from './plot.js';

const SYMBOLS = Object.fromEntries(MARKS.map(({state, symbol}) => [state, symbol]));
const LEAST_HEIGHT = 230;
const NAME = 84; // px of a name under the axis

/**
 * The depth profile of one step of one run or two. `answers` are those to ./step, `runs` has {name, colour, dash} of
 * each.
 */
export function depthProfile(answers, runs, layer, [width, height], colours) {
  const range = padded(extent(answers.map(({norm}) => norm)) ?? [-1, 1], 2, 0.1);
  const longest = answers.reduce((a, b) => (b.layers.length > a.layers.length ? b : a));
  const traces = answers.flatMap((answer, k) => [line(answer, runs[k]), beyond(answer, runs[k], range, colours)]);
  const every = Math.max(1, Math.ceil((longest.layers.length * NAME) / width));
  const tickvals = longest.layers.map((_, i) => i).filter((i) => i % every === 0);
  const at = longest.layers.indexOf(layer);
  const layout = {
    ...base(colours, width, Math.max(LEAST_HEIGHT, height), {l: 52, r: 12, t: 8, b: 44}),
    dragmode: false,
    xaxis: axis(colours, {
      range: [-0.6, longest.layers.length - 0.4],
      showgrid: false,
      tickvals,
      ticktext: tickvals.map((i) => literal(ending(longest.layers[i], 12))),
      tickangle: 0,
      title: {text: 'from the input to the output', standoff: 4},
    }),
    yaxis: axis(colours, {range, ...powerTicks(range, 6), ticklabelstandoff: 6}),
    shapes: at < 0 ? [] : [upright(at, {color: colours.ink, width: 1}, 'layer')],
  };
  return {traces, layout};
}

function line({layers, norm}, {name, colour, dash}) {
  return {
    type: 'scatter',
    mode: layers.length > 80 ? 'lines' : 'lines+markers',
    name: visible(name),
    x: layers.map((_, i) => i),
    y: norm,
    text: layers.map((layer, i) => `${literal(layer)}<br>norm ${fromLog(norm[i])}`),
    hovertemplate: '%{text}<extra></extra>',
    line: {color: colour, width: 1.6, dash},
    marker: {color: colour, size: 6},
  };
}

/** What has no place on the scale: too much on the upper edge, nothing on the lower. */
function beyond({layers, state}, {colour}, [low, high], colours) {
  const at = layers.map((_, i) => i).filter((i) => state[i] !== 'ok');
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'not on the scale',
    x: at,
    y: at.map((i) => (state[i] === 'nan' || state[i] === 'inf' ? high : low)),
    text: at.map((i) => `${literal(layers[i])}<br>${MARKS.find((mark) => mark.state === state[i]).name}`),
    hovertemplate: '%{text}<extra></extra>',
    cliponaxis: false,
    marker: {
      symbol: at.map((i) => SYMBOLS[state[i]]),
      size: 9,
      color: colour,
      line: {width: 1.5, color: at.map((i) => colours[MARKS.find((mark) => mark.state === state[i]).colour])},
    },
  };
}
