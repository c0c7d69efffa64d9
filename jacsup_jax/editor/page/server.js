// Requests to the server, by addresses relative to this file: the page may be
// below any path of a proxy.

const ROOT = new URL('../api/', import.meta.url);

// The server answered with a refusal.
export class Refused extends Error {}

async function ask(path, options) {
  const response = await fetch(new URL(path, ROOT), options);
  if (response.ok) return response;
  const line = await response.json().then((own) => own.error, () => null);
  throw new Refused(line ?? `${response.status} ${response.statusText}`);
}

const askJson = async (path, options) => (await ask(path, options)).json();
const askBlob = async (path, options) => (await ask(path, options)).blob();

async function askPicture(path, options) {
  // Without colour conversion: pixels are shown as the model made them.
  const blob = await askBlob(path, options);
  return createImageBitmap(blob, {colorSpaceConversion: 'none'});
}

const place = (model) => `models/${encodeURIComponent(model)}`;
const post = (content, signal) => ({
  method: 'POST',
  headers: {'Content-Type': 'application/json'},
  body: JSON.stringify(content),
  signal,
});
const postBytes = (body, signal) => ({
  method: 'POST',
  headers: {'Content-Type': 'application/octet-stream'},
  body,
  signal,
});

export const listModels = () => askJson('models');
export const describeModel = (model, signal) => askJson(place(model), {signal});
export const drawSamples = (model, signal) =>
  askPicture(`${place(model)}/samples`, {signal});
export const describePhoto = (model, photo, signal) =>
  askJson(`${place(model)}/photos/${photo}`, {signal});
export const drawPhoto = (model, photo, which, signal) =>
  askPicture(`${place(model)}/photos/${photo}/${which}`, {signal});
export const addPhoto = (model, file, align, signal) =>
  askJson(
    `${place(model)}/photos?align=${align ? 1 : 0}`, postBytes(file, signal),
  );
export const addDrawing = (model, blob, signal) =>
  askJson(`${place(model)}/drawings`, postBytes(blob, signal));
export const drawEdit = (content, signal) =>
  askPicture('edit', post(content, signal));
export const drawTiles = (content, signal) =>
  askPicture('tiles', post(content, signal));
export const makeFile = (content) => askBlob('export', post(content));

// Sends one request at a time and keeps only the latest of those that wait, so
// a dragged slider is drawn as fast as the server can, and never out of order.
// `draw(content, signal)` asks; then `show(picture, content)` or `fail(error)`.
export function makeLatest(draw, show, fail) {
  let waiting = null;
  let sending = null; // AbortController of the request under way

  async function run() {
    const own = new AbortController();
    sending = own;
    while (waiting !== null) {
      const content = waiting;
      waiting = null;
      try {
        const picture = await draw(content, own.signal);
        if (!own.signal.aborted) show(picture, content);
      } catch (error) {
        if (!own.signal.aborted) fail(error);
      }
      if (own.signal.aborted) return;
    }
    sending = null;
  }

  function ask(content) {
    waiting = content;
    if (!sending) run();
  }

  function cancel() {
    waiting = null;
    sending?.abort();
    sending = null;
  }

  return {ask, cancel};
}
