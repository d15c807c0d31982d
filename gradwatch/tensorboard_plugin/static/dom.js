// Elements, made without ever parsing HTML: names of layers and runs may hold anything.

/** An element with properties, attributes (what has a dash, and role) and children: elements or plain text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'role') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu; // what steers a terminal or the direction of writing

/** `text` with escapes for what cannot be seen. */
export function visible(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** `text` for plotly, which takes some tags for formatting. */
export function literal(text) {
  return visible(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

/** The end of `text`, where names differ: at most `length` characters, from a whole part on if one is near. */
export function ending(text, length) {
  const characters = [...visible(text)];
  if (characters.length <= length) return characters.join('');
  const end = characters.slice(1 - length).join('');
  const dot = end.indexOf('.');
  return `…${dot >= 0 && dot < length / 3 ? end.slice(dot + 1) : end}`;
}

/** A sentence in place of a view. */
export function message(title, ...lines) {
  const [first, ...rest] = lines;
  return el(
    'div',
    {className: 'message', role: 'status'},
    el('h2', {textContent: title}),
    first ? el('p', {textContent: visible(first)}) : null,
    ...rest.map((line) => el('pre', {textContent: line})),
  );
}
