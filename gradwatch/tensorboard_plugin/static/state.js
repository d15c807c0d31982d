// What is shown, in one object, kept in the address: a link restores it.

const PREFIX = 'p.gradwatch.'; // TensorBoard keeps what a plugin puts into the address under this name

const EMPTY = {run: null, other: null, lo: null, hi: null, step: null, layer: null, find: '', sort: '', reverse: null};
const NUMBERS = new Set(['lo', 'hi', 'step']);

/** The window whose address a reader sees and copies: TensorBoard's, of which the tab is a frame. */
function outer() {
  try {
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return window; // framed by a page of another origin
  }
}

/** From the part of an address behind #. What is not ours, or no number where one belongs, is left out. */
export function parse(hash) {
  const found = {...EMPTY};
  for (const part of hash.replace(/^#/, '').split('&')) {
    const at = part.indexOf('=');
    const key = part.slice(0, at);
    if (at < 0 || !key.startsWith(PREFIX)) continue;
    const name = key.slice(PREFIX.length);
    if (!Object.hasOwn(EMPTY, name)) continue;
    let value;
    try {
      value = decodeURIComponent(part.slice(at + 1));
    } catch {
      continue;
    }
    if (!NUMBERS.has(name)) found[name] = value;
    else if (/^-?\d{1,15}$/.test(value)) found[name] = Number(value);
  }
  return found;
}

/** Into the part of an address behind #, beside what others keep there. */
function format(state, hash) {
  const others = hash.replace(/^#/, '').split('&').filter((part) => part && !part.startsWith(PREFIX));
  const ours = Object.entries(state)
    .filter(([name, value]) => value !== EMPTY[name] && value !== null && value !== '')
    .map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  return `#${[...others, ...ours].join('&')}`;
}

/** The state, and who wants to know of its changes. */
export class State {
  #listeners = [];

  constructor() {
    this.values = parse(outer().location.hash);
    outer().addEventListener('hashchange', this.#follow);
    window.addEventListener('pagehide', () => outer().removeEventListener('hashchange', this.#follow));
  }

  /** `listener(values, changed)` is called with the names of what changed. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  set(changes) {
    const changed = new Set(Object.keys(changes).filter((name) => this.values[name] !== changes[name]));
    if (!changed.size) return;
    Object.assign(this.values, changes);
    const {history, location} = outer();
    history.replaceState(history.state, '', format(this.values, location.hash));
    this.#tell(changed);
  }

  /** The address that shows this again. */
  link() {
    const {location} = outer();
    return location.href.split('#')[0] + format(this.values, location.hash);
  }

  #follow = () => {
    const next = parse(outer().location.hash);
    const changed = new Set(Object.keys(next).filter((name) => this.values[name] !== next[name]));
    if (!changed.size || !outer().location.hash.includes(PREFIX)) return;
    this.values = next;
    this.#tell(changed);
  };

  #tell(changed) {
    for (const listener of this.#listeners) listener(this.values, changed);
  }
}
