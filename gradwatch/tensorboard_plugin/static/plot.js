// The one way to draw: plotly, with the page's colours.

let loading = null;

/** Load plotly once. Rejects where it is not there. A report brings it along. */
export function loadPlotly() {
  loading ??= window.Plotly
    ? Promise.resolve()
    : new Promise((resolve, reject) => {
        const script = document.createElement('script');
        script.src = './plotly.min.js';
        script.onload = resolve;
        script.onerror = () => reject(new Error('plotly.min.js could not be loaded'));
        document.head.append(script);
      });
  return loading;
}

const CONFIG = {displayModeBar: false, doubleClick: false, responsive: false, showTips: false};

/** What every plot's layout begins with. */
export function base(colours, width, height, margin) {
  return {
    width,
    height,
    margin,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: colours.plot,
    font: {family: colours.font, size: 11, color: colours.muted},
    hoverlabel: {
      bgcolor: colours.surface,
      bordercolor: colours.line,
      font: {family: colours.font, size: 12, color: colours.ink},
      align: 'left',
      namelength: 0,
    },
    showlegend: false,
    dragmode: 'zoom',
    hovermode: 'closest',
  };
}

/** What every axis begins with. */
export function axis(colours, more = {}) {
  return {
    gridcolor: colours.line,
    linecolor: colours.line,
    zeroline: false,
    ticks: '',
    fixedrange: true,
    showspikes: false,
    ...more,
  };
}

/** The name of a subplot, above its left edge. */
export function caption(text, y, colours, x = 0) {
  return {
    text,
    x,
    y,
    xref: 'paper',
    yref: 'paper',
    xanchor: 'left',
    yanchor: 'bottom',
    showarrow: false,
    bgcolor: colours.surface, // lines that cross the whole figure pass behind it
    borderpad: 1,
    font: {size: 11, color: colours.muted},
  };
}

/** A line through the whole height of a figure. */
export function upright(x, line, name = 'step') {
  return {type: 'line', name, xref: 'x', yref: 'paper', x0: x, x1: x, y0: 0, y1: 1, line};
}

/** Axis domains of rows of given heights in px, the first on top, `gap` px apart. */
export function stack(heights, gap) {
  const total = heights.reduce((sum, height) => sum + height, 0) + gap * (heights.length - 1);
  let top = total;
  const domains = heights.map((height) => {
    const domain = [Math.max(0, (top - height) / total), top / total];
    top -= height + gap;
    return domain;
  });
  return {domains, total};
}

/** Draw into `element`; after the first time only what changed. */
export async function draw(element, traces, layout) {
  await loadPlotly();
  await window.Plotly.react(element, traces, layout, CONFIG);
}

/** Replace only what lies over a drawn plot. */
export function cover(element, shapes) {
  return window.Plotly.relayout(element, {shapes});
}

/** Listen to a plot's events; plotly's own `on` is there from the first drawing on. */
export function listen(element, handlers) {
  if (element.dataset.listening) return;
  element.dataset.listening = 'yes';
  for (const [name, handler] of Object.entries(handlers)) element.on(`plotly_${name}`, handler);
}
