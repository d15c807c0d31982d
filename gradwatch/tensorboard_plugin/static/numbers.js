// Numbers as they travel and as they are read.

const TYPES = {f4: Float32Array, i4: Int32Array, u1: Uint8Array};

/** A typed array that was sent as base64. */
export function vector({dtype, bdata}) {
  return new TYPES[dtype](Uint8Array.from(atob(bdata), (c) => c.charCodeAt(0)).buffer);
}

/** The rows of an array that was sent as base64: one typed array per row. */
export function rows(sent) {
  const values = vector(sent);
  const [count, length] = sent.shape.split(',').map(Number);
  return Array.from({length: count}, (_, i) => values.subarray(i * length, (i + 1) * length));
}

/** `values`, of `shape`, as they are sent. */
export function sent(values, ...shape) {
  const [dtype] = Object.entries(TYPES).find(([, type]) => values instanceof type);
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return {dtype, bdata: btoa(text), shape: shape.join(',')};
}

const SUPERSCRIPTS = {'-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹'};

/** A whole power of ten in words of print: -7 is 10⁻⁷. */
export function power(exponent) {
  return `10${[...String(exponent)].map((c) => SUPERSCRIPTS[c]).join('')}`;
}

/** Three digits: 0.0312, 3.1e-9. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1).replace('e+', 'e');
  return String(Number(value.toPrecision(3)));
}

/** What a base-10 logarithm stands for, in three digits. */
export function fromLog(exponent) {
  if (exponent === null || Number.isNaN(exponent)) return '–';
  const whole = Math.floor(exponent);
  // a norm may lie beyond the smallest number that a double holds
  return Math.abs(exponent) < 300 ? short(10 ** exponent) : `${(10 ** (exponent - whole)).toFixed(1)}e${whole}`;
}

export const percent = (share) => `${Number((100 * share).toPrecision(share < 0.1 ? 2 : 3))}%`;

export const whole = (value) => Number(value).toLocaleString('en');

/** `n layers`, `1 layer`. */
export const count = (n, noun) => `${whole(n)} ${noun}${n === 1 ? '' : 's'}`;

/** The least and largest finite number of several arrays, or null. */
export function extent(arrays) {
  let [low, high] = [Infinity, -Infinity];
  for (const array of arrays) {
    for (const value of array) {
      if (value !== null && Number.isFinite(value)) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  }
  return low <= high ? [low, high] : null;
}

/** Tick marks at whole powers of ten, at most `most` of them. */
export function powerTicks([low, high], most = 5) {
  const every = Math.max(1, Math.ceil((Math.floor(high) - Math.ceil(low) + 1) / most));
  const tickvals = [];
  for (let tick = Math.ceil(low / every) * every; tick <= high; tick += every) tickvals.push(tick);
  return {tickvals, ticktext: tickvals.map(power)};
}

/** `range` with some air, and at least `least` wide. */
export function padded([low, high], least = 1, air = 0.06) {
  const missing = Math.max(0, least - (high - low)) / 2;
  const margin = air * Math.max(high - low, least);
  return [low - missing - margin, high + missing + margin];
}

/** Where columns of steps begin and end on the axis: edges [C + 1], so that neighbours meet. */
export function edges(steps, ends) {
  if (!steps.length) return [];
  const between = steps.slice(1).map((step, i) => (ends[i] + step) / 2);
  const last = steps.length - 1;
  const half = between.length ? Math.max(0.5, (steps[1] - ends[0]) / 2) : 0.5;
  return [steps[0] - half, ...between, ends[last] + half];
}

/** The column of `step`: the last that begins at or before it. */
export function columnOf(steps, step) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle - 1;
  }
  return low;
}
