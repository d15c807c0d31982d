// Where a probed backward pass lost or gained: every operation on the gradient's way, by its kind.

import {el, ending, literal, visible} from './dom.js';
import {axis, base} from './plot.js';
import {short} from './numbers.js';

// Okabe and Ito's colours, made for colour-blind readers, and hatching for the first three
const LOOKS = {
  activation: {colour: '#d55e00', shape: ''},
  weight: {colour: '#0072b2', shape: '/'},
  norm: {colour: '#009e73', shape: '\\'},
  residual: {colour: '#cc79a7', shape: 'x'},
  attention: {colour: '#e69f00', shape: '.'},
};
const NAME = 84; // px of a name under the axis
const OTHER = {colour: '#8c8c8c', shape: '-'};
const look = (kind) => LOOKS[kind] ?? OTHER;

/** Decades of the gradient's norm, from the natural logarithm of a squared gain. */
const decades = (logGain) => (logGain === null ? null : logGain / (2 * Math.LN10));

export function gainsFigure(profile, width, colours) {
  const segments = [...profile.segments].reverse(); // recorded from the output back; drawn as all else, input first
  const kinds = Object.keys(profile.by_kind);
  const every = Math.max(1, Math.ceil((segments.length * NAME) / width));
  const tickvals = segments.map((_, i) => i).filter((i) => i % every === 0);
  const traces = kinds.map((kind) => {
    const at = segments.map((_, i) => i).filter((i) => segments[i].kind === kind);
    const {colour, shape} = look(kind);
    return {
      type: 'bar',
      name: kind,
      x: at,
      y: at.map((i) => decades(segments[i].log_gain)),
      text: at.map((i) => described(segments[i])),
      textposition: 'none',
      hovertemplate: '%{text}<extra></extra>',
      marker: {
        color: colour,
        line: {width: 0},
        pattern: {shape, size: 5, solidity: 0.2, bgcolor: colour, fgcolor: '#fff'},
      },
    };
  });
  const layout = {
    ...base(colours, width, 230, {l: 64, r: 12, t: 8, b: 44}),
    dragmode: false,
    barmode: 'relative',
    bargap: segments.length > 200 ? 0 : 0.2,
    xaxis: axis(colours, {
      showgrid: false,
      tickvals,
      ticktext: tickvals.map((i) => literal(ending(segments[i].layer || segments[i].operation, 12))),
      tickangle: 0,
      title: {text: 'from the input to the output', standoff: 4},
      range: [-1, segments.length],
    }),
    yaxis: axis(colours, {
      zeroline: true,
      zerolinecolor: colours.muted,
      zerolinewidth: 1,
      title: {text: 'decades gained or lost', standoff: 8},
    }),
  };
  return {traces, layout};
}

function described({layer, kind, operation, log_gain: logGain}) {
  const where = literal(layer || 'outside of modules');
  return `<b>${where}</b>, ${literal(operation)}<br>${kind}: gradient norm ${factor(logGain)}`;
}

const factor = (logGain) => (logGain === null ? 'zero or not finite' : `times ${short(Math.exp(logGain / 2))}`);

/** What each kind does over the whole way, in words. */
export function gainsSummary(profile) {
  const parts = Object.entries(profile.by_kind).map(([kind, logGain]) => {
    const mark = el('span', {className: 'swatch', 'aria-hidden': 'true'});
    mark.style.background = look(kind).colour;
    return el('li', {}, mark, el('b', {textContent: kind}), ` ${factor(logGain)}`);
  });
  const {depth, step} = profile;
  const chi = short(Math.sqrt(profile.gain_per_layer));
  const whole = `All together the gradient norm arrives at the input ${factor(profile.log_gain)}`;
  return el(
    'div',
    {},
    el('p', {className: 'note', textContent: `${whole}: ${chi} per layer over ${depth} layers, at step ${step}.`}),
    el('ul', {className: 'kinds'}, ...parts),
    ...profile.notes.map((note) => el('p', {className: 'note', textContent: visible(note)})),
  );
}
