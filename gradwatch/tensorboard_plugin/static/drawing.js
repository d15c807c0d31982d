// From what is known to what is on the page. `view` is what Tab keeps: page, shown, details, chosen, colours, range and
// act, what the reader can do.

import {episodeList, lanes, sick} from './alerts.js';
import {clipSentence, stepSentence} from './clip.js';
import {el, message, visible} from './dom.js';
import {gainsFigure, gainsSummary} from './gains.js';
import {legend} from './heatmap.js';
import {layerFigure} from './layer.js';
import {count, whole} from './numbers.js';
import {cover, draw, listen} from './plot.js';
import {depthProfile} from './profile.js';
import {layerTable} from './table.js';
import {frame, shapesOf, timeline} from './timeline.js';
import {verdictCard} from './verdict.js';
import {figureWidth, panelWidth, SIDE_BY_SIDE, wideWidth} from './widths.js';

const FACTS = 24; // px of the sentence above the depth profile

/** The verdicts and the alerts. */
export function drawWords({page, shown, act}) {
  page.verdicts.replaceChildren(...shown.map(({name, report, found}) => verdictCard(name, report, found, act.go)));
  const every = shown.filter(({found}) => found.length);
  page.alerts.root.hidden = !every.length;
  page.alerts.title.textContent = 'Alerts';
  page.alerts.plot.replaceChildren(
    ...every.flatMap(({name, found}) => [
      ...(shown.length > 1 ? [el('h3', {textContent: visible(name)})] : []),
      episodeList([...found].sort((a, b) => a.start - b.start), act.go, {messages: true}),
    ]),
  );
}

/** The time line of every run that is shown. */
export async function drawTimelines({page, shown, chosen, colours, range}) {
  const every = shown.map(({cells}) => cells);
  const shared = frame(every, lanes(shown.map(({found}) => found)), figureWidth(page.root, shown.length));
  const clipped = shown.filter(({cells}) => cells.clip);
  page.legend.replaceChildren(
    ...legend(range, every),
    ...clipped.map(({cells, name}) => clipSentence(cells, shown.length > 1 ? name : null)),
  );
  for (const run of shown) {
    const {name, cells, found, figure: {plot, title, handlers}, colour} = run;
    title.textContent = visible(name);
    title.hidden = shown.length < 2;
    title.style.setProperty('--run', colour);
    title.style.paddingLeft = `${shared.left}px`;
    run.shared = shared;
    const {traces, layout} = timeline(cells, found, shared, range, colours, colour, chosen);
    await draw(plot, traces, layout);
    listen(plot, handlers);
    const size = `${count(cells.all_layers, 'layer')} over steps ${cells.lo} to ${cells.hi}`;
    plot.setAttribute('aria-label', `${visible(name)}: ${size}`);
  }
}

/** Only what the choice of a step and layer changes of them. */
export async function moveCrossHairs({shown, chosen, colours}) {
  for (const {cells, found, figure: {plot}, shared} of shown) {
    if (shared) await cover(plot, shapesOf(cells, found, shared, colours, chosen));
  }
}

export function drawNoLayer({page}, find) {
  page.legend.replaceChildren();
  page.figures.replaceChildren(message('No such layer', `No layer's name holds "${find}".`));
}

/** The layers of the first run in numbers. */
export function drawTable({page, shown, details, chosen, act}, state) {
  const [{name, found}] = shown;
  const {step} = details[0];
  const {plot, title} = page.table;
  title.textContent = `Layers at step ${whole(step.step)}${shown.length > 1 ? ` of ${visible(name)}` : ''}`;
  const focused = plot.contains(document.activeElement) ? document.activeElement.textContent : null;
  plot.replaceChildren(layerTable(step, sick(found), {...state, layer: chosen.layer}, act.chooseLayer, act.order));
  if (focused !== null) [...plot.querySelectorAll('button')].find(({textContent}) => textContent === focused)?.focus();
}

/** One step, one layer, and the gains of one backward pass. */
export async function drawPanels(view) {
  const {page} = view;
  const width = panelWidth(page.root);
  const height = await drawLayer(view, width);
  await drawStep(view, width, page.root.clientWidth >= SIDE_BY_SIDE ? height - FACTS : 0);
  await drawGains(view);
}

async function drawLayer({page, shown, details, chosen, colours, act}, width) {
  const {title, plot} = page.layer;
  title.textContent = `Layer ${visible(chosen.layer)}`;
  const have = details.map(({layer}, i) => ({answer: layer, run: shown[i]})).filter(({answer}) => answer);
  const {lo, hi} = shown[0].cells;
  const answers = have.map(({answer}) => answer);
  const {traces, layout} = layerFigure(answers, have.map(({run}) => run), [lo, hi], chosen.step, width, colours);
  await draw(plot, traces, layout);
  listen(plot, {click: ({points: [point]}) => act.chooseStep(Math.round(point.x))});
  return layout.height;
}

async function drawStep({page, shown, details, chosen, colours, act}, width, height) {
  const {title, facts, plot} = page.step;
  const answers = details.map(({step}) => step);
  title.textContent = `Step ${whole(answers[0].step)}`;
  const whose = (i) => (shown.length > 1 ? `${visible(shown[i].name)}: ` : '');
  facts.textContent = answers.map((answer, i) => whose(i) + stepSentence(answer)).join(' ');
  const {traces, layout} = depthProfile(answers, shown, chosen.layer, [width, height], colours);
  await draw(plot, traces, layout);
  // the traces' names of layers are read when clicked: what is drawn then is not what was drawn first
  plot.layers = answers.flatMap(({layers}) => [layers, layers]);
  listen(plot, {click: ({points: [point]}) => act.chooseLayer(plot.layers[point.curveNumber][Math.round(point.x)])});
}

async function drawGains({page, shown, details, colours}) {
  const {root, title, summary, plot} = page.gains;
  const probed = details.findIndex(({profile}) => profile);
  root.hidden = probed < 0;
  if (root.hidden) return;
  const {profile} = details[probed];
  const whose = shown.length > 1 ? visible(shown[probed].name) : 'Backward pass';
  title.textContent = `${whose}: where the gradient is lost or grows`;
  summary.replaceChildren(gainsSummary(profile));
  const {traces, layout} = gainsFigure(profile, wideWidth(page.root), colours);
  await draw(plot, traces, layout);
}
