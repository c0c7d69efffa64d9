// A strip of small edits over the range of one slider; a click moves it there.

import * as server from './server.js';
import {draw, make} from './view.js';
import {showStrength} from './sliders.js';

const COUNT = 7;

export class Strip {
  #asked = ''; // what the tiles show, or will
  #tiles = []; // {value, button, canvas}
  #latest;

  // Calls `onChoose(name, value)`.
  constructor(place, onChoose, onFailure) {
    Object.assign(this, {place, onChoose});
    this.#latest = server.makeLatest(server.drawTiles, (bitmap) => {
      this.#tiles.forEach(({canvas}, col) =>
        draw(canvas, bitmap, {col, cols: COUNT}));
    }, onFailure);
  }

  clear() {
    this.#latest.cancel();
    this.#asked = '';
    this.#tiles = [];
    this.place.replaceChildren();
  }

  // Shows a unit from `low` to `high`, with the other settings of `content`.
  show(unit, low, high, content) {
    const {[unit.name]: own = 0, ...strengths} = content.strengths;
    const ends = [low, high].map((end) => end.toFixed(2)).join(':');
    const grid = `${unit.name}:${ends}:${COUNT}`;
    const wanted = {...content, strengths, grid};
    const asked = JSON.stringify(wanted);
    if (asked !== this.#asked) {
      this.#asked = asked;
      this.#build(unit, low, high);
      this.#latest.ask(wanted);
    }
    const near = this.#tiles.map(({value}) => Math.abs(value - own));
    this.#tiles.forEach(({button}, i) => {
      button.ariaPressed = String(near[i] === Math.min(...near));
    });
  }

  #build(unit, low, high) {
    const values = Array.from(
      {length: COUNT}, (_, i) => low + ((high - low) * i) / (COUNT - 1),
    );
    const isNew = this.#tiles.length === 0;
    if (isNew) {
      this.#tiles = values.map(() => {
        const button = make('button', {type: 'button', className: 'tile'});
        const canvas = make('canvas');
        const caption = make('span');
        button.append(canvas, caption);
        return {button, canvas, caption};
      });
      this.heading = make('span', {className: 'strip_name'});
      this.place.replaceChildren(
        this.heading, ...this.#tiles.map(({button}) => button),
      );
    }
    this.heading.textContent = unit.label;
    this.#tiles.forEach((tile, i) => {
      tile.value = Math.round(values[i] * 10) / 10;
      const text = showStrength(tile.value);
      tile.caption.textContent = text;
      tile.button.ariaLabel = `${unit.label} ${text}`;
      tile.button.onclick = () => this.onChoose(unit.name, tile.value);
    });
  }
}
