// The total norm over time, and what clipping did to it.

import {el, visible} from './dom.js';
import {extent, padded, percent, powerTicks, short, vector} from './numbers.js';

/** The traces of the total norm: what it spans within each column, and its largest value. */
export function totalTraces(cells, colour, colours, yaxis) {
  const {total, clip, centres} = cells;
  const [largest, least] = [vector(total.largest), vector(total.least)];
  const shared = {type: 'scatter', mode: 'lines', yaxis, connectgaps: false};
  const traces = [
    {...shared, name: 'least total norm', x: centres, y: least, line: {width: 0, color: colour}, hoverinfo: 'skip'},
    {
      ...shared,
      name: 'total norm',
      x: centres,
      y: largest,
      line: {width: 1.4, color: colour},
      fill: 'tonexty',
      fillcolor: fade(colour, 0.2),
      hovertemplate: 'step %{x:.0f}<br>total norm 10^%{y:.2f}<extra></extra>',
    },
  ];
  if (clip) {
    traces.push({
      ...shared,
      name: 'threshold',
      x: centres,
      y: vector(clip.threshold),
      line: {width: 1.2, dash: 'dash', color: colours.muted, shape: 'hv'},
      hovertemplate: 'clipped above 10^%{y:.2f}<extra></extra>',
    });
  }
  return traces;
}

export function totalAxis(every) {
  const range = padded(extent(every.flatMap(({total}) => [vector(total.largest), vector(total.least)])) ?? [-1, 1], 2);
  return {range, ...powerTicks(range, 4)};
}

/** The smallest coefficient of each column, hanging down from 1: what was clipped away is what is filled. */
export function coefficientTrace(cells, colour, yaxis) {
  return {
    type: 'scatter',
    mode: 'lines',
    name: 'clip coefficient',
    x: cells.centres,
    y: vector(cells.clip.coefficient),
    line: {width: 1, color: colour, shape: 'hvh'},
    hovertemplate: 'step %{x:.0f}<br>gradients times %{y:.3g}<extra></extra>',
    yaxis,
  };
}

/** What clipping did over the steps that are shown, in a sentence. */
export function clipSentence({clip}, run) {
  const policy = visible(clip.policy.replaceAll('_', ' '));
  const share = clip.rate === null ? 'nothing was recorded of it here' : `${percent(clip.rate)} of the steps shown`;
  const subject = run ? `${visible(run)}: clipped` : 'Clipped';
  return el('span', {className: 'clipped', textContent: `${subject} by ${policy}: ${share}`});
}

/** One step's total norm and what clipping did to it, in a sentence. `step` is an answer to ./step. */
export function stepSentence({total, clip}) {
  const norm = `Total norm ${total === null ? 'not finite' : short(total)}`;
  if (!clip) return `${norm}.`;
  if (clip.coefficient === 0) return `${norm}: the step was skipped.`;
  const clipped = clip.clipped ? clip.clipped > 0 : clip.coefficient < 1;
  if (!clipped) return `${norm}, not clipped.`;
  const factor = clip.coefficient === null ? '' : ` (times ${short(clip.coefficient)})`;
  return `${norm}, clipped to ${short(clip.norm_after)}${factor}.`;
}

export function fade(hex, opacity) {
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${red},${green},${blue},${opacity})`;
}
