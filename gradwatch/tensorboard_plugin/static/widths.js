// Widths in px: how the page divides itself.

const FRAME = 68; // paddings and borders around what is in a panel
const LABELS = 240; // beside the heatmap, at most
export const SIDE_BY_SIDE = 900; // what two figures need

/** Of a figure of the time line, where there are so many. */
export function figureWidth(root, figures) {
  const room = root.clientWidth - FRAME;
  return Math.max(300, figures > 1 && room >= SIDE_BY_SIDE ? Math.floor((room - 24) / 2) : room);
}

/** Of what is in one of two panels beside each other. */
export function panelWidth(root) {
  const room = root.clientWidth - 32;
  return Math.max(280, room >= SIDE_BY_SIDE ? Math.floor((room - 16) / 2) - 34 : room - 34);
}

export const wideWidth = (root) => Math.max(280, root.clientWidth - FRAME);

/**
 * Columns to ask for, of a heatmap among so many.
 *
 * No more than there are pixels: a browser leaves out columns, and with them steps, where they are narrower.
 */
export function heatmapColumns(root, figures) {
  return Math.max(50, Math.floor((figureWidth(root, figures) - LABELS) * Math.min(1, window.devicePixelRatio || 1)));
}

export const panelColumns = (root) => Math.max(50, panelWidth(root) - 80);
