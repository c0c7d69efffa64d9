// The sliders of a model's units, in groups.

import {showStrength} from './settings.js';

const STEP = 0.1;

export class Sliders {
  #place;
  #rows = new Map(); // By the name of a unit.
  #onMove;
  #onChoose;

  // `onMove(name, value, step)` when one is moved, where `step` is 'none' while
  // it goes on, 'same' when it is done, and 'own' where that is not to be one
  // step with what was before; `onChoose(name)` when one is turned to.
  constructor(place, onMove, onChoose) {
    this.#place = place;
    this.#onMove = onMove;
    this.#onChoose = onChoose;
  }

  build(units, groups) {
    this.#rows.clear();
    this.#place.replaceChildren();
    for (const group of groups) {
      const own = units.filter((unit) => unit.group === group);
      if (!own.length) continue;
      const set = document.createElement('fieldset');
      const title = document.createElement('legend');
      title.textContent = group;
      set.append(title, ...own.map((unit) => this.#buildRow(unit)));
      this.#place.append(set);
    }
  }

  #buildRow(unit) {
    const row = document.createElement('div');
    row.className = 'unit';
    const slider = document.createElement('input');
    slider.type = 'range';
    // By number: a name may hold anything.
    slider.id = `unit_${this.#rows.size}`;
    slider.min = -unit.reach;
    slider.max = unit.reach;
    slider.step = STEP;
    slider.value = 0;
    const label = document.createElement('label');
    label.htmlFor = slider.id;
    label.textContent = unit.label;
    label.title = unit.label;
    const output = document.createElement('output');
    output.htmlFor = slider.id;
    // The slider says its value itself; the status tells what is shown.
    output.setAttribute('aria-live', 'off');
    const reset = document.createElement('button');
    reset.type = 'button';
    reset.className = 'reset_one';
    reset.textContent = '↺';
    reset.title = `Reset ${unit.label}`;
    reset.setAttribute('aria-label', `Reset ${unit.label}`);
    row.append(label, slider, output, reset);
    this.#rows.set(unit.name, {unit, row, slider, output, reset});
    if (unit.reach === 0) {
      slider.disabled = true;
      output.textContent = 'fixed';
      row.title = 'The same for all training data: there is nothing to move.';
      reset.hidden = true;
      return row;
    }
    const name = unit.name;
    const moveToZero = () => {
      if (Number(slider.value) === 0) return;
      this.set(name, 0);
      this.#onMove(name, 0, 'own');
    };
    slider.addEventListener('input', () => {
      this.#show(name);
      this.#onMove(name, Number(slider.value), 'none');
    });
    slider.addEventListener('change', () =>
      this.#onMove(name, Number(slider.value), 'same'),
    );
    slider.addEventListener('focus', () => this.#onChoose(name));
    slider.addEventListener('dblclick', moveToZero);
    slider.addEventListener('keydown', (event) => {
      if (event.key === 'Delete' || event.key === 'Backspace') moveToZero();
    });
    reset.addEventListener('click', () => {
      moveToZero();
      slider.focus(); // The button is gone.
    });
    this.#show(name);
    return row;
  }

  // Names of units that can be moved.
  get movable() {
    return [...this.#rows.values()]
      .filter(({unit}) => unit.reach > 0)
      .map(({unit}) => unit.name);
  }

  unit(name) {
    return this.#rows.get(name)?.unit;
  }

  set(name, value) {
    this.#rows.get(name).slider.value = value;
    this.#show(name);
  }

  setAll(strengths) {
    for (const name of this.movable) this.set(name, strengths[name] ?? 0);
  }

  // Returns a strength that the slider can have.
  fit(name, value) {
    const unit = this.unit(name);
    if (!unit || unit.reach === 0) return 0;
    const inside = Math.max(-unit.reach, Math.min(unit.reach, value));
    return Math.round(inside * 10) / 10;
  }

  choose(name) {
    for (const [own, {row}] of this.#rows) {
      row.classList.toggle('chosen', own === name);
    }
  }

  // Shows those alone whose name has the text; returns how many.
  filter(text) {
    const wanted = text.trim().toLowerCase().replaceAll('_', ' ');
    let count = 0;
    for (const {unit, row} of this.#rows.values()) {
      const found = `${unit.label} ${unit.name}`
        .toLowerCase()
        .replaceAll('_', ' ')
        .includes(wanted);
      row.hidden = !found;
      count += found;
    }
    for (const set of this.#place.children) {
      set.hidden = !set.querySelector('.unit:not([hidden])');
    }
    return count;
  }

  #show(name) {
    const {slider, output, reset, unit} = this.#rows.get(name);
    const {reach} = unit;
    const value = Number(slider.value);
    output.textContent = `${showStrength(value)} σ`;
    slider.setAttribute(
      'aria-valuetext',
      `${showStrength(value)} standard deviations`,
    );
    slider.style.setProperty('--at', (value / reach + 1) / 2);
    reset.classList.toggle('idle', value === 0);
    reset.disabled = value === 0;
  }
}
