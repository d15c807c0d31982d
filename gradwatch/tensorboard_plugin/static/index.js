// The entry: TensorBoard imports this file and calls render().

import {el} from './dom.js';
import {Embedded} from './embedded.js';
import {Server} from './source.js';
import {State} from './state.js';
import {Tab} from './tab.js';

export async function render() {
  const embedded = document.getElementById('gradwatch-data');
  if (!embedded) document.head.append(el('link', {rel: 'stylesheet', href: './style.css'}));
  const tab = new Tab(embedded ? new Embedded(JSON.parse(embedded.textContent)) : new Server(), new State());
  document.body.append(tab.page.root);
  await tab.start();
}
