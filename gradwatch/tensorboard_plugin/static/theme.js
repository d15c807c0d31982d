// Light and dark as TensorBoard is, which tells frames nothing of it; else as the reader's system.

const NAMES = 'ink muted line plot surface error warning info first second absent nan inf zero'.split(' ');

function outerBody() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null;
  }
}

function isDark() {
  return outerBody()?.classList.contains('dark-mode') ?? matchMedia('(prefers-color-scheme: dark)').matches;
}

/** The colours of the page's style, by name, for plots. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return {...colours, dark: isDark(), font: style.getPropertyValue('--font').trim()};
}

/** Keep the page light or dark, and call `listener` after each change. */
export function followTheme(listener) {
  const apply = () => {
    const before = document.documentElement.classList.contains('dark');
    document.documentElement.classList.toggle('dark', isDark());
    return before !== isDark();
  };
  const changed = () => apply() && listener();
  apply();
  const body = outerBody();
  if (body) {
    const observer = new MutationObserver(changed);
    observer.observe(body, {attributes: true, attributeFilter: ['class']});
    window.addEventListener('pagehide', () => observer.disconnect());
  } else {
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
  }
}
