// Colours: as the system has them, or light, or dark.

const THEMES = ['auto', 'light', 'dark'];
const NAMES = {auto: 'as the system', light: 'light', dark: 'dark'};
const SIGNS = {auto: '◐', light: '○', dark: '●'};

export function offerThemes(button) {
  let theme = 'auto';
  try {
    theme = localStorage.getItem('theme') ?? theme;
  } catch {
    // A browser may keep nothing.
  }
  if (!THEMES.includes(theme)) theme = 'auto';

  const show = () => {
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = SIGNS[theme];
    button.setAttribute('aria-label', `Colours: ${NAMES[theme]}`);
    button.title = `Colours: ${NAMES[theme]}`;
  };

  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem('theme', theme);
    } catch {
      // Then it is forgotten when the page is closed.
    }
    show();
  });
  show();
}
