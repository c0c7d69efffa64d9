// Pictures on the page.

export const $ = (id) => document.getElementById(id);

export const make = (tag, options = {}) =>
  Object.assign(document.createElement(tag), options);

// Draws a bitmap, or the part in a column and a row of tiles of one size.
export function draw(canvas, bitmap, {col = 0, cols = 1, row = 0, rows = 1} = {}) {
  const width = bitmap.width / cols;
  const height = bitmap.height / rows;
  Object.assign(canvas, {width, height});
  const box = [col * width, row * height, width, height, 0, 0, width, height];
  canvas.getContext('2d').drawImage(bitmap, ...box);
}

// Draws the picture before an edit: the reconstruction, with the share `detail`
// of what it lacks of the original, as the edit has it.
export function drawBefore(canvas, {original, reconstruction}, detail) {
  draw(canvas, reconstruction);
  const context = canvas.getContext('2d');
  context.globalAlpha = detail;
  context.drawImage(original, 0, 0);
}

// Moves the line between before and after with a slider that covers the frame:
// it can be dragged anywhere, and moved by keys.
export function listenToDivider(divider, place) {
  const show = () => place.style.setProperty('--split', `${divider.value}%`);
  divider.addEventListener('input', show);
  show();
}

export function save(blob, download) {
  const link = make('a', {href: URL.createObjectURL(blob), download});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
