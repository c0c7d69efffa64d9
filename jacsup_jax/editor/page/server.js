// Requests to the server.

// The server answered with a refusal.
export class Refused extends Error {}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  let line = `${response.status} ${response.statusText}`;
  try {
    line = (await response.json()).error ?? line;
  } catch {
    // Not JSON: the status is all we know.
  }
  throw new Refused(line);
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
export class Latest {
  #show;
  #fail;
  #waiting = null;
  #sending = null; // AbortController of the request under way

  // `show(picture, content)`, `fail(error)`.
  constructor(show, fail) {
    this.#show = show;
    this.#fail = fail;
  }

  ask(content) {
    this.#waiting = content;
    if (!this.#sending) this.#run();
  }

  cancel() {
    this.#waiting = null;
    this.#sending?.abort();
    this.#sending = null;
  }

  async #run() {
    const own = new AbortController();
    this.#sending = own;
    while (this.#waiting !== null) {
      const content = this.#waiting;
      this.#waiting = null;
      try {
        const picture = await drawEdit(content, own.signal);
        if (own.signal.aborted) return;
        this.#show(picture, content);
      } catch (error) {
        if (own.signal.aborted) return;
        this.#fail(error);
      }
    }
    this.#sending = null;
  }
}
