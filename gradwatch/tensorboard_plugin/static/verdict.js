// The verdict on top, in words: how bad, what, since when, why, and what to do.

import {badge, episodeList, isOpen, SEVERITIES} from './alerts.js';
import {el, visible} from './dom.js';

const SHOWN = 4; // lines before the rest is folded away
const WORDS = {error: 'Will not train', warning: 'Look at this', info: 'Healthy'};

/** A card for one run. `report` is the server's answer, `found` the run's episodes. */
export function verdictCard(run, report, found, choose) {
  const severity = Object.hasOwn(SEVERITIES, report.severity) ? report.severity : 'info';
  const open = found.filter(isOpen);
  const shown = open.length ? open : found.filter((episode) => episode.severity !== 'info');
  const card = el(
    'article',
    {className: `verdict ${severity}`, 'aria-label': `Verdict on ${visible(run)}`},
    el('header', {}, badge(severity, WORDS[severity]), el('span', {className: 'run', textContent: visible(run)})),
    el('p', {className: 'sentence', textContent: visible(report.verdict)}),
  );
  if (shown.length) card.append(episodeList(shown, choose, {most: 4}));
  const reasons = report.sections.filter(([title]) => title !== 'Verdict');
  if (report.notes.length) reasons.push(['Log', report.notes]);
  if (reasons.length) card.append(sections(reasons));
  return card;
}

function sections(parts) {
  const list = el('dl');
  for (const [title, lines] of parts) {
    list.append(el('dt', {textContent: title}), el('dd', {}, ...paragraphs(lines.slice(0, SHOWN))));
    if (lines.length > SHOWN) list.append(rest(lines.slice(SHOWN)));
  }
  return list;
}

const paragraphs = (lines) => lines.map((line) => el('p', {textContent: visible(line)}));

function rest(lines) {
  const more = el('summary', {textContent: `${lines.length} more`});
  return el('dd', {}, el('details', {}, more, ...paragraphs(lines)));
}
