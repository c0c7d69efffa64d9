// Requests to the server.

// The server answered with a refusal.
export class Refused extends Error {}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const line = await response.json().then((own) => own.error, () => null);
  throw new Refused(line ?? `${response.status} ${response.statusText}`);
}

const askJson = async (path, options) => (await ask(path, options)).json();

async function askPicture(path, options) {
  // Without colour conversion: pixels are shown as the model made them.
  const blob = await (await ask(path, options)).blob();
  return createImageBitmap(blob, {colorSpaceConversion: 'none'});
}

const place = (model) => `/api/models/${encodeURIComponent(model)}`;

export const listModels = () => askJson('/api/models');
export const describeModel = (model, signal) => askJson(place(model), {signal});
export const drawSamples = (model, signal) =>
  askPicture(`${place(model)}/samples`, {signal});
export const drawPhoto = (model, photo, which, signal) =>
  askPicture(`${place(model)}/photos/${photo}/${which}`, {signal});
export const addPhoto = (model, file, align, signal) =>
  askJson(`${place(model)}/photos?align=${align ? 1 : 0}`, {
    method: 'POST',
    headers: {'Content-Type': 'application/octet-stream'},
    body: file,
    signal,
  });
export const drawEdit = (content, signal) =>
  askPicture('/api/edit', {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify(content),
    signal,
  });

// Sends one edit at a time and keeps only the latest of those that wait, so a
// dragged slider is drawn as fast as the server can, and never out of order.
// Calls `show(picture, content)` or `fail(error)`.
export function makeLatest(show, fail) {
  let waiting = null;
  let sending = null; // AbortController of the request under way

  async function run() {
    const own = new AbortController();
    sending = own;
    while (waiting !== null) {
      const content = waiting;
      waiting = null;
      try {
        const picture = await drawEdit(content, own.signal);
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
