// Answers that a report in a file brings along, in the place of a server's: cut from what is there.

import {MARKS} from './marks.js';
import {columnOf, rows, sent, vector, whole} from './numbers.js';
import {Unanswered} from './source.js';

export class Embedded {
  #runs;

  /** `data` is {runs: [run], answers: {run: {overview, report, steps, layers, profiles}}}, see html.py. */
  constructor(data) {
    this.list = data.runs;
    this.#runs = new Map(data.answers);
    const coarse = [...this.#runs].filter(([, {overview}]) => overview.rows_read > overview.steps.length);
    this.notice = coarse.length ? coarse.map(([name, {overview}]) => resolution(name, overview)).join(' ') : null;
  }

  async get(name, {run, ...parameters} = {}) {
    if (name === 'runs') return {runs: this.list, plotly: Boolean(window.Plotly)};
    const record = this.#runs.get(run);
    if (!record) throw new Unanswered('this run is not in the report');
    return VIEWS[name](record, parameters);
  }
}

function resolution(run, {rows_read: steps, steps: {length: columns}}) {
  const kept = 'each keeps its largest norm and all its marks, so no spike is lost';
  return `${run}: ${whole(steps)} steps in ${whole(columns)} columns; ${kept}. TensorBoard zooms in to single steps.`;
}

const VIEWS = {overview, step, layer, report: ({report}) => report, profile};

/** The columns from `lo` to `hi`: [first, after the last]. */
function between({steps, ends}, lo, hi) {
  const from = lo === null || lo === undefined ? 0 : ends.findIndex((end) => end >= lo);
  const after = hi === null || hi === undefined ? steps.length : steps.filter((step) => step <= hi).length;
  if (from < 0 || from >= after) throw new Unanswered(`no step was recorded from ${lo} to ${hi}`);
  return [from, after];
}

const cut = (array, [from, after]) => sent(vector(array).slice(from, after), after - from);

function overview({overview: all}, {lo, hi, match}) {
  const part = between(all, lo, hi);
  const columns = part[1] - part[0];
  const starts = all.counts.map((_, i) => all.counts.slice(0, i).reduce((sum, n) => sum + n, 0));
  const needle = (match ?? '').toLowerCase();
  const namesOf = (i) => all.names.slice(starts[i], starts[i] + all.counts[i]);
  const holds = (i) => namesOf(i).some((name) => name.toLowerCase().includes(needle));
  const kept = all.layers.map((_, i) => i).filter(holds);
  const cells = (array) => {
    const chosen = kept.map((i) => rows(array)[i].subarray(...part));
    const joined = new (vector(array).constructor)(kept.length * columns);
    chosen.forEach((row, i) => joined.set(row, i * columns));
    return sent(joined, kept.length, columns);
  };
  const {clip} = all;
  return {
    ...all,
    lo: all.steps[part[0]],
    hi: all.ends[part[1] - 1],
    steps: all.steps.slice(...part),
    ends: all.ends.slice(...part),
    layers: kept.map((i) => all.layers[i]),
    counts: kept.map((i) => all.counts[i]),
    names: kept.flatMap(namesOf),
    norm: cells(all.norm),
    marks: cells(all.marks),
    total: {largest: cut(all.total.largest, part), least: cut(all.total.least, part)},
    clip: clip && {
      ...clip,
      coefficient: cut(clip.coefficient, part),
      threshold: cut(clip.threshold, part),
      clipped: cut(clip.clipped, part),
    },
  };
}

/** The step if it is there in full; else the column that holds it, with the largest norm of each layer. */
function step({steps, overview: all}, {step: asked}) {
  const j = columnOf(all.steps, asked);
  const exact = steps.find((one) => one.step === asked || (all.steps[j] === all.ends[j] && one.step === all.steps[j]));
  if (exact) return exact;
  const norm = rows(all.norm).map((row) => (Number.isNaN(row[j]) ? null : row[j]));
  const marks = rows(all.marks).map((row) => row[j]);
  const total = vector(all.total.largest)[j];
  return {
    step: all.steps[j],
    layers: all.layers,
    norm,
    state: marks.map((bits, i) => (norm[i] !== null ? 'ok' : (MARKS.find(({bit}) => bits & bit)?.state ?? 'none'))),
    total: Number.isNaN(total) ? null : 10 ** total,
    clip: null,
    alerts: [],
  };
}

/** The layer if it is there in full; else its row of the whole picture. */
function layer({layers, overview: all}, {layer: name, lo, hi}) {
  const found = layers.find((one) => one.layer === name) ?? rowOf(all, name);
  const part = between(found, lo, hi);
  const arrays = Object.fromEntries(['largest', 'least', 'median', 'marks'].map((key) => [key, cut(found[key], part)]));
  return {...found, ...arrays, steps: found.steps.slice(...part), ends: found.ends.slice(...part)};
}

function rowOf(all, name) {
  const at = all.names.indexOf(name);
  let [row, after] = [0, all.counts[0]];
  while (after <= at) after += all.counts[++row];
  const norm = sent(rows(all.norm)[row], all.steps.length);
  return {
    layer: name,
    steps: all.steps,
    ends: all.ends,
    largest: norm,
    least: norm,
    median: norm,
    marks: sent(rows(all.marks)[row], all.steps.length),
    band: {low: null, high: null},
    update_ratio: null,
    histogram: null,
    alerts: all.alerts.filter((alert) => alert.layer === name || alert.layers.includes(name)),
  };
}

function profile({profiles}, {step: asked}) {
  if (!profiles.length) throw new Unanswered('no backward pass of this run was probed');
  return profiles.findLast(({step: at}) => at <= asked) ?? profiles[0];
}
