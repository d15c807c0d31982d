// The tab: from the state to answers to pictures, one way only.

import {episodes, sick} from './alerts.js';
import {el, message, visible} from './dom.js';
import {drawNoLayer, drawPanels, drawTable, drawTimelines, drawWords, moveCrossHairs} from './drawing.js';
import {pointing, typing} from './handlers.js';
import {cellsOf, colourRange} from './heatmap.js';
import {onDataReloaded} from './ipc.js';
import {count, whole} from './numbers.js';
import {figure, skeleton} from './page.js';
import {loadPlotly} from './plot.js';
import {Unanswered} from './source.js';
import {followTheme, palette} from './theme.js';
import {heatmapColumns, panelColumns} from './widths.js';

const LEAST_HEIGHT = 50; // px: TensorBoard squashes the frames of tabs that are not shown
const ROWS = 440; // of the heatmap, at most as many as it is px high

export class Tab {
  #source;
  #state;
  #tickets = {overview: 0, details: 0}; // of the latest requests: what answers earlier ones is dropped
  #stale = false; // new data came while the tab was not shown
  #runs = [];
  #reports = new Map();
  #shown = []; // of each run on the screen: name, cells, found (its episodes), report, figure, colour, dash
  #details = null; // of each the answers on the chosen step and layer, null while they are on their way
  #range = null; // of the colours: kept while the reader zooms
  #rescale = true;
  #width = 0;

  constructor(source, state) {
    this.#source = source;
    this.#state = state;
    this.page = skeleton();
  }

  async start() {
    const {page} = this;
    const set = (changes) => this.#state.set(changes);
    followTheme(() => this.#attempt(() => this.#draw()));
    page.run.onchange = () => set({run: page.run.value, lo: null, hi: null, step: null});
    page.other.onchange = () => set({other: page.other.value || null});
    page.zoomOut.onclick = () => set({lo: null, hi: null});
    page.link.onclick = () => this.#copyLink();
    page.find.oninput = delayed(150, () => set({find: page.find.value}));
    this.#state.listen((_, changed) => this.#changed(changed));
    onDataReloaded(() => this.reload());
    new ResizeObserver(delayed(120, () => this.#resized())).observe(page.root);
    loadPlotly().catch(() => {}); // on its way while the answers are; who draws is told
    await this.reload();
  }

  /** Ask for everything again. */
  async reload() {
    this.#stale = document.hidden || window.innerHeight < LEAST_HEIGHT;
    if (this.#stale) return;
    await this.#attempt(async () => {
      const {runs, plotly} = await this.#source.get('runs');
      this.#runs = runs;
      if (!runs.length) {
        this.#say('No gradients recorded yet', 'The tab fills as soon as training writes into this log:', FIRST_STEPS);
        return;
      }
      this.#notice(plotly ? this.#source.notice : NO_PLOTLY);
      const {values} = this.#state;
      const exists = (name) => runs.some((run) => run.name === name);
      if (values.run !== null && !exists(values.run)) this.#notice(`There is no run ${visible(values.run)} here.`);
      if (!exists(values.run)) values.run = worstRun(runs).name;
      if (!exists(values.other)) values.other = null;
      this.#rescale = true;
      this.#reports.clear();
      await this.#loadOverview();
    });
  }

  #changed(changed) {
    if (!this.#runs.length) return;
    if (['run', 'other', 'find'].some((name) => changed.has(name))) this.#rescale = true;
    const overview = ['run', 'other', 'lo', 'hi', 'find'].some((name) => changed.has(name)) || !this.#shown.length;
    this.#attempt(() => (overview ? this.#loadOverview() : this.#loadDetails()));
  }

  async #attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Unanswered)) console.error(error);
      this.#say('This cannot be shown', error.message);
    }
  }

  async #loadOverview() {
    const ticket = ++this.#tickets.overview;
    this.#tickets.details++;
    const {page} = this;
    const {run, other} = this.#state.values;
    const names = [run, ...(other && other !== run ? [other] : [])];
    this.#width = page.root.clientWidth;
    const columns = heatmapColumns(page.root, names.length);
    const answers = await Promise.all(names.map((name, i) => this.#overview(name, columns, i > 0)));
    if (ticket !== this.#tickets.overview) return;
    const shown = answers.filter((answer) => answer);
    const figures = shown.map((_, i) => this.#shown[i]?.figure ?? this.#figure(i));
    this.#shown = shown.map((answer, i) => ({...answer, figure: figures[i], dash: i ? 'dash' : 'solid'}));
    this.#details = null;
    page.figures.replaceChildren(...figures.map(({root}) => root));
    if (this.#rescale) this.#range = colourRange(this.#shown.map(({cells}) => cells));
    this.#rescale = false;
    page.messages.replaceChildren();
    page.content.hidden = false;
    this.#controls();
    const details = this.#hasLayers ? this.#loadDetails({moved: false}) : null; // meanwhile
    details?.catch(() => {}); // told where it is awaited
    await this.#draw();
    await details;
  }

  /** One run's answers; of a run beside another that has nothing to show here, null and a notice. */
  async #overview(name, columns, optional) {
    const {lo, hi, find: match} = this.#state.values;
    try {
      const [answer, report] = await Promise.all([
        this.#source.get('overview', {run: name, lo, hi, columns, rows: ROWS, least: 0, match}),
        this.#reports.get(name) ?? this.#source.get('report', {run: name}),
      ]);
      this.#reports.set(name, report);
      return {name, report, cells: cellsOf(answer), found: episodes(answer.alerts)};
    } catch (error) {
      if (!optional || !(error instanceof Unanswered)) throw error;
      this.#notice(`${visible(name)}: ${error.message}`);
      return null;
    }
  }

  async #loadDetails({moved = true} = {}) {
    const ticket = ++this.#tickets.details;
    const {step, layer} = this.#chosen;
    const {lo, hi} = this.#state.values;
    const columns = panelColumns(this.page.root);
    const ask = (name, parameters) => this.#source.get(name, parameters);
    const details = await Promise.all(
      this.#shown.map(async ({name: run, cells}) => {
        const probed = cells.probes.some((probe) => probe <= step);
        const [one, over, profile] = await Promise.all([
          ask('step', {run, step}),
          cells.row.has(layer) ? ask('layer', {run, layer, lo, hi, columns}) : null,
          probed ? ask('profile', {run, step}) : null,
        ]);
        return {step: one, layer: over, profile};
      }),
    );
    if (ticket !== this.#tickets.details) return;
    this.#details = details;
    await this.#drawDetails(moved);
  }

  get #hasLayers() {
    return this.#shown[0].cells.names.length > 0;
  }

  /** The chosen step and layer: what is chosen for the reader until they choose. */
  get #chosen() {
    const [{cells, found}] = this.#shown;
    const {step, layer} = this.#state.values;
    const ill = [...sick(found).keys()].find((name) => cells.row.has(name));
    return {step: step ?? cells.hi, layer: cells.row.has(layer) ? layer : (ill ?? cells.names[0])};
  }

  get #view() {
    const colours = palette();
    this.#shown.forEach((run, i) => Object.assign(run, {colour: i ? colours.second : colours.first}));
    const [shown, details, range, act] = [this.#shown, this.#details, this.#range, this.#act];
    return {page: this.page, shown, details, chosen: this.#chosen, colours, range, act};
  }

  #act = {
    go: ({start, layers}) => {
      const layer = layers.find((name) => this.#shown[0].cells.row.has(name));
      this.#state.set({step: start, ...(layer ? {layer} : {})});
    },
    chooseStep: (step) => this.#state.set({step}),
    chooseLayer: (layer) => this.#state.set({layer}),
    order: (sort) => {
      const {sort: before, reverse} = this.#state.values;
      this.#state.set({sort, reverse: before === sort && !reverse ? '1' : null});
    },
  };

  /** Everything on the screen, from what is known. */
  async #draw() {
    if (!this.#shown.length) return;
    const view = this.#view;
    drawWords(view);
    this.page.content.classList.toggle('without-layers', !this.#hasLayers);
    if (!this.#hasLayers) {
      drawNoLayer(view, this.#state.values.find);
      this.#count();
    } else {
      if (await this.#canDraw()) await drawTimelines(view);
      await this.#drawDetails(false);
    }
  }

  /** What the chosen step and layer are about; `moved` where the time line does not know of it yet. */
  async #drawDetails(moved) {
    if (!this.#details) return;
    const view = this.#view;
    drawTable(view, this.#state.values);
    if (await this.#canDraw()) {
      if (moved) await moveCrossHairs(view);
      await drawPanels(view);
    }
    this.#count();
  }

  async #canDraw() {
    try {
      await loadPlotly();
      return true;
    } catch (error) {
      this.page.content.classList.add('without-plots');
      if (this.page.notice.hidden) this.#notice(`No pictures: ${error.message}.`);
      return false;
    }
  }

  /** Counts the drawings, for whoever waits for one. */
  #count() {
    const {dataset} = this.page.root;
    dataset.drawn = String(1 + Number(dataset.drawn ?? 0));
  }

  #figure(index) {
    const made = figure();
    const run = () => this.#shown[index];
    const set = (changes) => this.#state.set(changes);
    made.plot.id = `timeline-${index}`;
    made.handlers = pointing(run, set, this.page.tip);
    made.plot.addEventListener('keydown', typing(run, () => this.#chosen, set, this.page.live));
    return made;
  }

  #controls() {
    const {page} = this;
    const {run, other, find, lo, hi} = this.#state.values;
    const options = this.#runs.map(({name}) => el('option', {value: name, textContent: visible(name)}));
    page.run.replaceChildren(...options);
    page.run.value = run;
    const others = options.filter(({value}) => value !== run).map((option) => option.cloneNode(true));
    page.other.replaceChildren(el('option', {value: '', textContent: 'nothing'}), ...others);
    page.other.value = other ?? '';
    if (document.activeElement !== page.find) page.find.value = find;
    const {cells} = this.#shown[0];
    page.zoomOut.hidden = lo === null && hi === null;
    page.zoomOut.textContent = `Steps ${whole(cells.lo)} to ${whole(cells.hi)} ×`;
    const {layers, last} = this.#runs.find(({name}) => name === run);
    page.size.textContent = `${count(layers, 'layer')}, latest step ${whole(last)}`;
  }

  async #copyLink() {
    const {link} = this.page;
    const address = this.#state.link();
    try {
      await navigator.clipboard.writeText(address);
      link.textContent = 'Copied';
      setTimeout(() => (link.textContent = 'Copy link'), 1500);
    } catch {
      this.#notice(address); // only pages from this machine or by https may write to the clipboard
    }
  }

  async #resized() {
    if (window.innerHeight < LEAST_HEIGHT) return;
    const wider = Math.abs(this.page.root.clientWidth - this.#width) > 4;
    if (this.#stale) await this.reload();
    else if (this.#shown.length && wider) await this.#attempt(() => this.#loadOverview());
  }

  #notice(text) {
    this.page.notice.textContent = text ?? '';
    this.page.notice.hidden = !text;
  }

  #say(title, ...lines) {
    this.page.content.hidden = true;
    this.page.messages.replaceChildren(message(title, ...lines));
  }
}

const NO_PLOTLY =
  'No pictures without plotly: pip install "gradwatch[tensorboard]" where TensorBoard runs, and start it again.';

const FIRST_STEPS = `monitor = gradwatch.Monitor(model, sinks=[gradwatch.sinks.TensorBoard("runs/first")])
for x, y in loader:
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    monitor.step()
    optimizer.step()`;

/** What to open with: the run that is worst off, of equals the first. */
function worstRun(runs) {
  const rank = {error: 2, warning: 1};
  return runs.reduce((worst, run) => ((rank[run.severity] ?? 0) > (rank[worst.severity] ?? 0) ? run : worst));
}

/** `work`, once nothing has asked for it any more for a while. */
function delayed(milliseconds, work) {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(work, milliseconds);
  };
}
