// What the page asks the server for.

// The server has answered, and refused.
export class Refused extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  let line = `${response.status} ${response.statusText}`;
  try {
    line = (await response.json()).error ?? line;
  } catch {
    // Not our own answer: its status is all that is known.
  }
  throw new Refused(response.status, line);
}

const askJson = async (path, options) => (await ask(path, options)).json();

async function askPicture(path, options) {
  // Without a change of colours: pixels are shown as the model made them.
  return createImageBitmap(await (await ask(path, options)).blob(), {
    colorSpaceConversion: 'none',
  });
}

const post = (content, signal) => ({
  method: 'POST',
  headers: {'Content-Type': 'application/json'},
  body: JSON.stringify(content),
  signal,
});

const place = (model) => `/api/models/${encodeURIComponent(model)}`;

export const listModels = () => askJson('/api/models');

export const describeModel = (model, signal) =>
  askJson(place(model), {signal});

export const drawSamples = (model, signal) =>
  askPicture(`${place(model)}/samples`, {signal});

export const addPhoto = (model, file, align, signal) =>
  askJson(`${place(model)}/photos?align=${align ? 1 : 0}`, {
    method: 'POST',
    headers: {'Content-Type': 'application/octet-stream'},
    body: file,
    signal,
  });

export const drawPhoto = (model, photo, which, signal) =>
  askPicture(`${place(model)}/photos/${photo}/${which}`, {signal});

export const drawEdit = (content, signal) =>
  askPicture('/api/edit', post(content, signal));

export const drawStrip = (content, signal) =>
  askPicture('/api/strip', post(content, signal));

// Sends one request at a time; of those that come meanwhile the last alone. So
// what is dragged is shown as fast as the server can, and never out of order.
export class Latest {
  #send;
  #show;
  #fail;
  #waiting = null;
  #sending = null; // An AbortController while a request is under way.
  #timer = null;

  // `send(content, signal)` -> result; `show(result, content)`;
  // `fail(error, content)` -> milliseconds after which to try again, or null.
  constructor(send, show, fail) {
    this.#send = send;
    this.#show = show;
    this.#fail = fail;
  }

  ask(content) {
    this.#waiting = content;
    if (!this.#sending) this.#run();
  }

  // What is under way is not shown any more, and nothing waits.
  cancel() {
    this.#waiting = null;
    this.#sending?.abort();
    this.#sending = null;
    clearTimeout(this.#timer);
  }

  async #run() {
    clearTimeout(this.#timer);
    const own = new AbortController();
    this.#sending = own;
    while (this.#waiting !== null && !own.signal.aborted) {
      const content = this.#waiting;
      this.#waiting = null;
      try {
        const result = await this.#send(content, own.signal);
        if (own.signal.aborted) return;
        this.#show(result, content);
      } catch (error) {
        if (own.signal.aborted) return;
        const pause = this.#fail(error, content);
        if (pause === null) continue;
        this.#waiting ??= content;
        this.#sending = null;
        this.#timer = setTimeout(() => this.#run(), pause);
        return;
      }
    }
    if (this.#sending === own) this.#sending = null;
  }
}
