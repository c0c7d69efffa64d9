// A row of edits over the range of one unit, each of which can be taken.

import * as pictures from './pictures.js';
import * as server from './server.js';
import {showStrength} from './settings.js';

const COUNT = 7;
// Milliseconds without a change: while a slider is dragged its own picture
// comes first.
const PAUSE = 200;

export class Strip {
  #place;
  #title;
  #tiles = [];
  #latest;
  #shown = null; // The request whose pictures there are, as text.
  #asked = null;
  #timer = null;

  // `onTake(strength)` when a tile is taken; `onAnswer()` when the server has
  // drawn the strip; `onFailure` as of `Latest`.
  constructor(place, title, {onTake, onAnswer, onFailure}) {
    this.#place = place;
    this.#title = title;
    this.#latest = new server.Latest(
      server.drawStrip,
      (bitmap) => {
        onAnswer();
        this.#show(bitmap);
      },
      (error) => {
        const pause = onFailure(error);
        if (pause === null) this.#asked = null;
        return pause;
      },
    );
    for (let number = 0; number < COUNT; number += 1) {
      const tile = document.createElement('button');
      tile.type = 'button';
      const canvas = document.createElement('canvas');
      const value = document.createElement('span');
      tile.append(canvas, value);
      tile.addEventListener('click', () => onTake(Number(tile.value)));
      this.#tiles.push({tile, canvas, value});
      place.append(tile);
    }
    place.hidden = true;
  }

  // `content` is what an edit is asked for by; `unit` runs over its range.
  refresh(content, unit) {
    // Steps of 1, 1.5 or 2, which the slider has too.
    const reach = [6, 4.5, 3].find((own) => own <= unit.reach) ?? 3;
    const current = content.strengths[unit.name] ?? 0;
    const strengths = {...content.strengths, [unit.name]: 0};
    const asked = {
      ...content,
      strengths,
      unit: unit.name,
      low: -reach,
      high: reach,
      count: COUNT,
    };
    this.#title.textContent = `Strip of ${unit.label}`;
    this.#tiles.forEach(({tile, value}, number) => {
      const own = -reach + (2 * reach * number) / (COUNT - 1);
      tile.value = own;
      value.textContent = showStrength(own);
      tile.setAttribute('aria-label', `${unit.label} ${showStrength(own)} σ`);
      tile.setAttribute('aria-pressed', String(own === current));
    });
    const key = JSON.stringify(asked, (_, value) =>
      // Sorted, as strengths are in the order in which they were moved.
      value && typeof value === 'object'
        ? Object.fromEntries(
            Object.entries(value)
              .filter(([, own]) => own !== 0)
              .sort(([a], [b]) => (a < b ? -1 : 1)),
          )
        : value,
    );
    if (key === this.#asked) return;
    this.cancel();
    if (key === this.#shown) {
      this.#place.classList.remove('old');
      this.#asked = key;
      return;
    }
    this.#asked = key;
    this.#place.classList.add('old');
    this.#timer = setTimeout(() => this.#latest.ask({...asked}), PAUSE);
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#latest.cancel();
    this.#asked = null;
  }

  #show(bitmap) {
    this.#tiles.forEach(({canvas}, number) =>
      pictures.drawPart(canvas, bitmap, number, COUNT),
    );
    this.#shown = this.#asked;
    this.#place.hidden = false;
    this.#place.classList.remove('old');
  }
}
