// A pad over two units: a place on it is a position of both.
//
// Behind it are edits of the photo at these places, and for a model with a
// layout the classes of the training data.

import * as server from './server.js';
import {make} from './view.js';
import {showStrength} from './sliders.js';

const SIZE = 440; // pixels of the picture
const KEYS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
};

export const colorOf = (index) =>
  `hsl(${Math.round(index * 137.5) % 360} 60% ${index % 2 ? 34 : 44}%)`;

export class Map2d {
  #asked = '';
  #tiles = null; // bitmap
  #latest;
  #units = [];
  #axes = []; // the two units
  #photo = null; // with its positions
  #content = null;

  // `parts` are elements; calls `onMove([[name, position], ...])`.
  constructor(parts, onMove, onFailure) {
    Object.assign(this, {...parts, onMove});
    this.#latest = server.makeLatest(server.drawTiles, (bitmap) => {
      this.#tiles = bitmap;
      this.#paint();
    }, onFailure);
    this.place.addEventListener('toggle', () => this.#refresh());
    for (const select of [this.across, this.up]) {
      select.addEventListener('change', () => this.#choose(select));
    }
    this.#listen();
  }

  build(model) {
    // The map ends where either the training data or edits that work do.
    this.#units = model.units
      .filter((unit) => unit.reach > 0)
      .map((unit) => ({
        ...unit,
        low: Math.max(unit.low, unit.usual[0]),
        high: Math.min(unit.high, unit.usual[1]),
      }));
    this.#photo = null;
    this.layout = model.layout;
    const start = this.layout?.axes ?? model.map;
    this.place.hidden = this.#units.length < 2;
    for (const [i, select] of [this.across, this.up].entries()) {
      select.replaceChildren(
        ...this.#units.map(({name, label}) => new Option(label, name)),
      );
      if (start[i] !== undefined) select.value = start[i];
    }
    this.place.open = this.layout !== null;
    // Small images are drawn fast enough for the paper's Figure 1.
    this.count = model.size <= 32 ? 11 : 5;
    this.#choose(this.across);
  }

  // Shows where a photo is with the settings of `content`.
  show(photo, content) {
    this.#photo = photo;
    this.#content = content;
    this.#showMarker();
  }

  // Draws the tiles again if they are another picture's.
  settle() {
    this.#refresh();
  }

  #choose(changed) {
    const other = changed === this.across ? this.up : this.across;
    if (changed.value === other.value) {
      other.value = this.#units.find(({name}) => name !== changed.value)?.name;
    }
    this.#axes = [this.across, this.up].map(({value}) =>
      this.#units.find(({name}) => name === value));
    this.#tiles = null;
    this.#asked = '';
    this.#paint();
    this.#showMarker();
    this.#refresh();
  }

  #refresh() {
    if (!this.place.open || this.place.hidden || !this.#photo) return;
    const strengths = {...this.#content.strengths};
    const parts = this.#axes.map(({name, low, high}) => {
      delete strengths[name];
      const ends = [low, high].map((end) => end - this.#photo.positions[name]);
      return `${name}:${ends.map((end) => end.toFixed(2)).join(':')}:${this.count}`;
    });
    const wanted = {...this.#content, strengths, grid: parts.join(',')};
    const asked = JSON.stringify(wanted);
    if (asked === this.#asked) return;
    this.#asked = asked;
    this.#latest.ask(wanted);
  }

  #paint() {
    this.picture.width = this.picture.height = SIZE;
    const context = this.picture.getContext('2d');
    const names = this.#axes.map((unit) => unit?.name).join();
    if (this.layout?.axes.join() === names) this.#paintClasses(context);
    if (!this.#tiles) return;
    context.imageSmoothingQuality = 'high';
    // White ink on the colours of classes.
    if (this.layout) context.globalCompositeOperation = 'screen';
    context.drawImage(this.#tiles, 0, 0, SIZE, SIZE);
  }

  #paintClasses(context) {
    const {cells, classes} = this.layout;
    const small = make('canvas', {width: cells.length, height: cells.length});
    const ink = small.getContext('2d');
    const labels = classes.map(({label}) => label);
    cells.forEach((row, y) => row.forEach((own, x) => {
      const index = labels.indexOf(String(own));
      ink.fillStyle = index < 0 ? '#222' : colorOf(index);
      ink.fillRect(x, y, 1, 1);
    }));
    context.drawImage(small, 0, 0, SIZE, SIZE);
  }

  #place(name) {
    const moved = this.#content.strengths[name] ?? 0;
    return (this.#photo.positions[name] ?? 0) + moved;
  }

  #showMarker() {
    if (!this.#photo || this.#axes.length < 2 || !this.#axes[1]) return;
    const put = (element, positions) => {
      const [x, y] = this.#axes.map(({low, high}, i) =>
        Math.max(0, Math.min(1, (positions[i] - low) / (high - low || 1))));
      element.style.left = `${x * 100}%`;
      element.style.top = `${100 - y * 100}%`;
    };
    const places = this.#axes.map(({name}) => this.#place(name));
    put(this.marker, places);
    put(this.origin, this.#axes.map(({name}) => this.#photo.positions[name]));
    const text = this.#axes.map(
      ({name, label}) =>
        `${label} ${showStrength(this.#content.strengths[name] ?? 0)}`,
    );
    this.marker.setAttribute('aria-valuenow', places[0].toFixed(1));
    this.marker.setAttribute('aria-valuetext', text.join(', '));
  }

  #moveTo(positions) {
    this.onMove(this.#axes.map(({name}, i) => [name, positions[i]]));
  }

  #listen() {
    const follow = (event) => {
      const box = this.pad.getBoundingClientRect();
      const shares = [
        (event.clientX - box.left) / box.width,
        1 - (event.clientY - box.top) / box.height,
      ].map((share) => Math.max(0, Math.min(1, share)));
      this.#moveTo(this.#axes.map(
        ({low, high}, i) => low + (high - low) * shares[i],
      ));
    };
    this.pad.addEventListener('pointerdown', (event) => {
      if (!this.#photo || event.button) return;
      event.preventDefault();
      this.marker.focus();
      this.pad.setPointerCapture(event.pointerId);
      follow(event);
    });
    this.pad.addEventListener('pointermove', (event) => {
      if (this.pad.hasPointerCapture(event.pointerId)) follow(event);
    });
    this.marker.addEventListener('keydown', (event) => {
      const step = KEYS[event.key];
      if (!step || !this.#photo) return;
      event.preventDefault();
      this.#moveTo(this.#axes.map(({name, low, high}, i) => {
        const place = this.#place(name) + (step[i] * (high - low)) / 20;
        return Math.max(low, Math.min(high, place));
      }));
    });
  }
}
