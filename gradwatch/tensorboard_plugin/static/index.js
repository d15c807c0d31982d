// The tab. TensorBoard imports this file and calls render(). From the state to answers to pictures, one way only.

import {episodeList, episodes, lanes, sick} from './alerts.js';
import {clipSentence, stepSentence} from './clip.js';
import {el, message, visible} from './dom.js';
import {Embedded} from './embedded.js';
import {gainsFigure, gainsSummary} from './gains.js';
import {cellAt, cellsOf, cellText, colourRange, legend} from './heatmap.js';
import {onDataReloaded} from './ipc.js';
import {keyed} from './keys.js';
import {layerFigure} from './layer.js';
import {count, whole} from './numbers.js';
import {figure, skeleton} from './page.js';
import {draw, listen, loadPlotly} from './plot.js';
import {depthProfile} from './profile.js';
import {Server, Unanswered} from './source.js';
import {State} from './state.js';
import {layerTable} from './table.js';
import {followTheme, palette} from './theme.js';
import {frame, timeline} from './timeline.js';
import {verdictCard} from './verdict.js';

const LEAST_HEIGHT = 50; // px: TensorBoard squashes the frames of tabs that are not shown
const LABELS = 240; // px beside the heatmap, at most
const SIDE_BY_SIDE = 900; // px that two figures need
const FACTS = 24; // px of the sentence above the depth profile

export async function render() {
  const embedded = document.getElementById('gradwatch-data');
  if (!embedded) document.head.append(el('link', {rel: 'stylesheet', href: './style.css'}));
  const tab = new Tab(embedded ? new Embedded(JSON.parse(embedded.textContent)) : new Server(), new State());
  document.body.append(tab.page.root);
  await tab.start();
}

class Tab {
  #source;
  #state;
  #ticket = {overview: 0, details: 0};
  #stale = false; // new data came while the tab was not shown
  #runs = [];
  #shown = []; // of each run on the screen: name, cells, found (its episodes), report, figure, colour, dash
  #details = null;
  #colours = null;
  #range = null; // of the colours: kept while the reader zooms
  #rescale = true;
  #width = 0;

  constructor(source, state) {
    this.#source = source;
    this.#state = state;
    this.page = skeleton();
  }

  get #values() {
    return this.#state.values;
  }

  /** The chosen step and layer; what is chosen for the reader until they choose. */
  get #chosen() {
    const [{cells, found}] = this.#shown;
    const ill = sick(found).keys().next().value;
    const known = cells.row.has(this.#values.layer);
    return {
      step: this.#values.step ?? cells.hi,
      layer: known ? this.#values.layer : cells.row.has(ill) ? ill : cells.names[0],
    };
  }

  async start() {
    const {page} = this;
    followTheme(() => this.#draw());
    page.run.onchange = () => this.#state.set({run: page.run.value, lo: null, hi: null, step: null});
    page.other.onchange = () => this.#state.set({other: page.other.value || null});
    page.zoomOut.onclick = () => this.#state.set({lo: null, hi: null});
    page.link.onclick = () => this.#copyLink();
    let typing;
    page.find.oninput = () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#state.set({find: page.find.value}), 150);
    };
    this.#state.listen((_, changed) => this.#changed(changed));
    onDataReloaded(() => this.reload());
    let resizing;
    new ResizeObserver(() => {
      if (window.innerHeight < LEAST_HEIGHT) return;
      clearTimeout(resizing);
      resizing = setTimeout(() => this.#resized(), 120);
    }).observe(page.root);
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
        this.#say('No gradients recorded yet', 'Nothing under this log directory was written by gradwatch. The tab fills as soon as training writes:', FIRST_STEPS);
        return;
      }
      this.#notice(plotly ? this.#source.notice : 'No pictures without plotly: pip install "gradwatch[tensorboard]" where TensorBoard runs, and start it again.');
      const exists = (name) => runs.some((run) => run.name === name);
      if (this.#values.run !== null && !exists(this.#values.run)) this.#notice(`There is no run ${visible(this.#values.run)} here.`);
      this.#state.values.run = exists(this.#values.run) ? this.#values.run : worstRun(runs).name;
      if (!exists(this.#values.other)) this.#state.values.other = null;
      this.#rescale = true;
      await this.#loadOverview();
    });
  }

  #changed(changed) {
    if (!this.#runs.length) return;
    if (changed.has('run') || changed.has('other') || changed.has('find')) this.#rescale = true;
    const overview = ['run', 'other', 'lo', 'hi', 'find'].some((name) => changed.has(name));
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
    const ticket = ++this.#ticket.overview;
    const {run, other, lo, hi, find} = this.#values;
    const names = [run, ...(other && other !== run ? [other] : [])];
    this.#width = this.page.root.clientWidth;
    const room = this.#figureWidth(names.length) - LABELS;
    // no more columns than pixels: a browser leaves out columns, and with them steps, where they are narrower
    const columns = Math.max(50, Math.floor(room * Math.min(1, window.devicePixelRatio || 1)));
    const answers = await Promise.all(
      names.map(async (name) => {
        const [answer, report] = await Promise.all([
          this.#source.get('overview', {run: name, lo, hi, columns, rows: 440, least: 0, match: find}),
          this.#source.get('report', {run: name}),
        ]);
        return {name, report, cells: cellsOf(answer), found: episodes(answer.alerts)};
      }),
    );
    if (ticket !== this.#ticket.overview) return;
    this.#shown = answers.map((answer, i) => ({...answer, figure: this.#shown[i]?.figure ?? this.#figure(i), dash: i ? 'dash' : 'solid'}));
    this.page.figures.replaceChildren(...this.#shown.map(({figure: {root}}) => root));
    this.#details = null;
    if (this.#rescale) this.#range = colourRange(this.#shown.map(({cells}) => cells));
    this.#rescale = false;
    this.page.messages.replaceChildren();
    this.page.content.hidden = false;
    this.#controls();
    await this.#loadDetails();
  }

  async #loadDetails() {
    const ticket = ++this.#ticket.details;
    if (!this.#shown[0].cells.names.length) return this.#draw();
    const {step, layer} = this.#chosen;
    const {lo, hi} = this.#values;
    const columns = Math.max(50, Math.floor(this.#panelWidth() - 80));
    const details = await Promise.all(
      this.#shown.map(async ({name, cells}) => ({
        step: await this.#source.get('step', {run: name, step}),
        layer: cells.row.has(layer) ? await this.#source.get('layer', {run: name, layer, lo, hi, columns}) : null,
        profile: cells.probes.some((probe) => probe <= step) ? await this.#source.get('profile', {run: name, step}) : null,
      })),
    );
    if (ticket !== this.#ticket.details) return;
    this.#details = details;
    await this.#draw();
  }

  /** Everything on the screen, from what is known. */
  async #draw() {
    if (!this.#shown.length) return;
    this.#colours = palette();
    this.#shown.forEach((run, i) => Object.assign(run, {colour: i ? this.#colours.second : this.#colours.first}));
    const {page} = this;
    page.verdicts.replaceChildren(...this.#shown.map(({name, report, found}) => verdictCard(name, report, found, (one) => this.#go(one))));
    this.#drawAlerts();
    if (!this.#shown[0].cells.names.length) {
      page.figures.replaceChildren(message('No such layer', `No layer's name holds "${this.#values.find}".`));
      return this.#done();
    }
    if (!this.#details) return null; // on their way
    this.#drawTable();
    try {
      await loadPlotly();
    } catch (error) {
      page.content.classList.add('without-plots');
      if (page.notice.hidden) this.#notice(`No pictures: ${error.message}.`);
      return this.#done();
    }
    await this.#drawTimelines();
    await this.#drawPanels();
    return this.#done();
  }

  /** Counts the drawings, for whoever waits for one. */
  #done() {
    const {root} = this.page;
    root.dataset.drawn = String(1 + Number(root.dataset.drawn ?? 0));
  }

  async #drawTimelines() {
    const every = this.#shown.map(({cells}) => cells);
    const rules = lanes(this.#shown.map(({found}) => found));
    const shared = frame(every, rules, this.#figureWidth(this.#shown.length));
    const clipped = this.#shown.filter(({cells}) => cells.clip && cells.steps.length);
    this.page.legend.replaceChildren(
      ...legend(this.#range, every),
      ...clipped.map(({cells, name}) => clipSentence(cells, this.#shown.length > 1 ? name : null)),
    );
    for (const {name, cells, found, figure: {plot, title}, colour} of this.#shown) {
      title.textContent = visible(name);
      title.hidden = this.#shown.length < 2;
      title.style.setProperty('--run', colour);
      title.style.paddingLeft = `${shared.left}px`;
      if (!cells.steps.length) {
        plot.replaceChildren(message('No steps here', 'This run has no steps in the window that is shown.'));
        continue;
      }
      const {traces, layout} = timeline(cells, found, shared, this.#range, this.#colours, colour, this.#chosen);
      await draw(plot, traces, layout);
      listen(plot, this.#handlers(plot));
      plot.setAttribute('aria-label', `${visible(name)}: ${count(cells.all_layers, 'layer')} over steps ${cells.lo} to ${cells.hi}`);
    }
  }

  async #drawPanels() {
    const {page} = this;
    const chosen = this.#chosen;
    const width = this.#panelWidth();
    const one = this.#details.map(({step}) => step);
    page.step.title.textContent = `Step ${whole(one[0].step)}`;
    page.step.facts.textContent = this.#shown.map(({name}, i) => `${this.#shown.length > 1 ? `${visible(name)}: ` : ''}${stepSentence(one[i])}`).join(' ');
    const have = this.#details.map(({layer}, i) => ({answer: layer, run: this.#shown[i]})).filter(({answer}) => answer?.steps.length);
    page.layer.title.textContent = `Layer ${visible(chosen.layer)}`;
    let height = 0;
    if (have.length) {
      const {cells} = this.#shown[0];
      const {traces, layout} = layerFigure(have.map(({answer}) => answer), have.map(({run}) => run), [cells.lo, cells.hi], chosen.step, width, this.#colours);
      await draw(page.layer.plot, traces, layout);
      listen(page.layer.plot, {click: ({points: [point]}) => this.#state.set({step: Math.round(point.x)})});
      height = layout.height;
    }

    const probed = this.#details.findIndex(({profile}) => profile);
    page.gains.root.hidden = probed < 0;
    if (probed >= 0) {
      const {profile} = this.#details[probed];
      const whose = this.#shown.length > 1 ? `${visible(this.#shown[probed].name)}: ` : '';
      page.gains.title.textContent = `${whose || 'Backward pass: '}where the gradient is lost or grows`;
      page.gains.summary.replaceChildren(gainsSummary(profile));
      const {traces, layout} = gainsFigure(profile, width, this.#colours);
      await draw(page.gains.plot, traces, layout);
    }

    const {traces, layout} = depthProfile(one, this.#shown, chosen.layer, [width, probed < 0 && this.#width >= SIDE_BY_SIDE ? height - FACTS : 0], this.#colours);
    await draw(page.step.plot, traces, layout);
    listen(page.step.plot, {click: ({points: [point]}) => this.#state.set({layer: this.#details[point.curveNumber >> 1].step.layers[Math.round(point.x)]})});
  }

  #drawTable() {
    const {page} = this;
    const [{name, found}] = this.#shown;
    const {step} = this.#details[0];
    page.table.title.textContent = `Layers at step ${whole(step.step)}${this.#shown.length > 1 ? ` of ${visible(name)}` : ''}`;
    const state = {...this.#values, layer: this.#chosen.layer};
    const order = (sort) => this.#state.set({sort, reverse: this.#values.sort === sort && !this.#values.reverse ? '1' : null});
    const focused = page.table.plot.contains(document.activeElement) ? document.activeElement.textContent : null;
    page.table.plot.replaceChildren(layerTable(step, sick(found), state, (layer) => this.#state.set({layer}), order));
    if (focused !== null) [...page.table.plot.querySelectorAll('button')].find(({textContent}) => textContent === focused)?.focus();
  }

  #drawAlerts() {
    const {page} = this;
    const every = this.#shown.filter(({found}) => found.length);
    page.alerts.root.hidden = !every.length;
    page.alerts.title.textContent = 'Alerts';
    page.alerts.plot.replaceChildren(
      ...every.flatMap(({name, found}) => [
        ...(this.#shown.length > 1 ? [el('h3', {textContent: visible(name)})] : []),
        episodeList([...found].sort((a, b) => a.start - b.start), (one) => this.#go(one), {messages: true}),
      ]),
    );
  }

  #figure(index) {
    const made = figure('');
    made.plot.id = `timeline-${index}`;
    made.plot.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const {cells} = this.#shown[index];
      const change = cells.steps.length ? keyed(event.key, event.shiftKey, cells, this.#chosen) : null;
      if (!change) return;
      event.preventDefault();
      this.#state.set(change);
      const {layer, step, value} = cellText(cells, ...cellAt(cells, this.#chosen.layer, this.#chosen.step));
      this.page.live.textContent = `${layer}, ${step}: ${value}`;
    });
    return made;
  }

  #handlers(plot) {
    const run = () => this.#shown.find(({figure: one}) => one.plot === plot);
    const cell = ({points}) => {
      const point = points.find(({data}) => data.type === 'heatmap');
      return point ? point.pointIndex : null; // [row, column]
    };
    return {
      click: (event) => {
        const {cells} = run();
        const at = cell(event);
        if (at) this.#state.set({step: cells.steps[at[1]], layer: cells.firsts[at[0]]});
        else this.#state.set({step: Math.max(cells.lo, Math.min(cells.hi, Math.round(event.points[0].x)))});
      },
      hover: (event) => {
        const at = cell(event);
        if (at) this.#tip(event.event, cellText(run().cells, ...at));
      },
      unhover: () => (this.page.tip.hidden = true),
      doubleclick: () => this.#state.set({lo: null, hi: null}),
      relayout: (change) => {
        const [from, to] = [change['xaxis.range[0]'], change['xaxis.range[1]']];
        if (from === undefined) return;
        const lo = Math.max(run().cells.lo, Math.ceil(from));
        this.#state.set({lo, hi: Math.max(lo, Math.min(run().cells.hi, Math.floor(to)))});
      },
    };
  }

  #tip({clientX, clientY}, {layer, step, value}) {
    const {tip} = this.page;
    tip.replaceChildren(el('b', {textContent: layer}), el('span', {textContent: step}), el('span', {textContent: value}));
    tip.hidden = false;
    const left = Math.min(clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${left}px, ${clientY + 16}px)`;
  }

  #go({start, layers}) {
    const {cells} = this.#shown[0];
    const first = layers.find((layer) => cells.row.has(layer));
    this.#state.set({step: start, ...(first ? {layer: first} : {})});
  }

  #controls() {
    const {page} = this;
    const options = this.#runs.map(({name}) => el('option', {value: name, textContent: visible(name)}));
    page.run.replaceChildren(...options);
    page.run.value = this.#values.run;
    page.other.replaceChildren(
      el('option', {value: '', textContent: 'nothing'}),
      ...options.filter(({value}) => value !== this.#values.run).map((option) => option.cloneNode(true)),
    );
    page.other.value = this.#values.other ?? '';
    if (document.activeElement !== page.find) page.find.value = this.#values.find;
    const {lo, hi} = this.#values;
    page.zoomOut.hidden = lo === null && hi === null;
    page.zoomOut.textContent = `Steps ${whole(this.#shown[0].cells.lo)} to ${whole(this.#shown[0].cells.hi)} ×`;
    const {layers, last} = this.#runs.find(({name}) => name === this.#values.run);
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
      // only pages from this machine or by https may write to the clipboard
      this.#notice(address);
    }
  }

  #resized() {
    if (this.#stale) return this.reload();
    if (this.#shown.length && Math.abs(this.page.root.clientWidth - this.#width) > 4) this.#attempt(() => this.#loadOverview());
    return null;
  }

  #figureWidth(figures) {
    const room = this.page.root.clientWidth - 68; // px of paddings and borders
    return Math.max(300, figures > 1 && room >= SIDE_BY_SIDE ? Math.floor((room - 24) / 2) : room);
  }

  #panelWidth() {
    const room = this.page.root.clientWidth - 32;
    return Math.max(280, room >= SIDE_BY_SIDE ? Math.floor((room - 16) / 2) - 34 : room - 34);
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
