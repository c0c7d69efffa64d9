// Sliders of a model's units, in groups.

import {make} from './view.js';

const percent = (rate) => `${Math.round(rate * 100)} %`;

// `+1.5`, with a true minus sign.
export function showStrength(value) {
  const sign = value > 0 ? '+' : value < 0 ? '−' : '';
  return sign + Math.abs(value).toFixed(1);
}

// Whether a photo at a position has what a unit adds.
export const isHigh = ({low, high}, position) => position > (low + high) / 2;

export class Sliders {
  #rows = new Map(); // by the name of a unit

  // Calls `onMove(name, value)` when a slider moves. A photo's own positions
  // decide how far edits of it are known to work, see `showRanges`.
  constructor(place, onMove) {
    Object.assign(this, {place, onMove});
  }

  build(units, groups) {
    this.#rows.clear();
    this.place.replaceChildren();
    for (const group of groups) {
      // Weak ones last.
      const own = units
        .filter((unit) => unit.group === group)
        .sort((a, b) => a.is_weak - b.is_weak);
      if (!own.length) continue;
      const set = make('fieldset');
      const rows = own.map((unit) => this.#buildRow(unit));
      set.append(make('legend', {textContent: group}), ...rows);
      this.place.append(set);
    }
  }

  #buildRow(unit) {
    const {name, label, reach, flips, kept} = unit;
    const id = `unit_${this.#rows.size}`; // A name may hold any characters.
    const row = make('div', {className: 'unit'});
    const slider = make('input', {
      type: 'range', id, min: -reach, max: reach, step: 0.1, value: 0,
    });
    // The slider announces its value itself.
    const output = make('output', {htmlFor: id, ariaLive: 'off'});
    const title = `Reset ${label}`;
    const reset = make('button', {
      type: 'button', className: 'reset_one', textContent: '↺', title,
      ariaLabel: title,
    });
    const caption = make('label', {htmlFor: id, textContent: label});
    const mark = make('span', {className: 'mark', id: `${id}_mark`});
    const heading = make('span', {className: 'heading'});
    heading.append(caption, mark);
    row.append(heading, slider, output, reset);
    this.#rows.set(name, {unit, row, slider, output, reset, low: -reach, high: reach});
    if (flips !== null) {
      row.title = `Judges see ${percent(flips)} of its edits (chance: 50 %),`
        + ` and ${percent(kept)} of the other attributes stay.`;
    }
    if (unit.is_weak) {
      mark.textContent = 'weak';
      slider.setAttribute('aria-describedby', mark.id);
    }
    if (reach === 0) {
      slider.disabled = reset.hidden = true;
      output.textContent = 'fixed';
      row.title = 'This unit is constant on the training data.';
      return row;
    }
    const moveToZero = () => {
      this.set(name, 0);
      this.onMove(name, 0);
    };
    slider.addEventListener('input', () => {
      this.#show(name);
      this.onMove(name, Number(slider.value));
    });
    slider.addEventListener('keydown', (event) => {
      if (event.key === 'Delete' || event.key === 'Backspace') moveToZero();
    });
    reset.addEventListener('click', () => {
      moveToZero();
      slider.focus(); // The button is hidden now.
    });
    this.#show(name);
    return row;
  }

  unit(name) {
    return this.#rows.get(name)?.unit;
  }

  // Shows how far each slider is known to work for a photo at `positions`.
  showRanges(positions) {
    for (const [name, row] of this.#rows) {
      const {unit, slider} = row;
      const place = positions[name] ?? 0;
      const [low, high] = unit.usual;
      // On its own side an edit has nothing to do beyond the training data.
      const ends = isHigh(unit, place)
        ? [unit.low, Math.min(high, unit.high)]
        : [Math.max(low, unit.low), unit.high];
      row.low = Math.max(-unit.reach, Math.min(0, ends[0] - place));
      row.high = Math.min(unit.reach, Math.max(0, ends[1] - place));
      const share = (value) => (value / unit.reach + 1) / 2;
      if (!unit.reach) continue;
      slider.style.setProperty('--zone-low', share(row.low));
      slider.style.setProperty('--zone-high', share(row.high));
      this.#show(name);
    }
  }

  // Returns the ends of that range; one that is almost at zero is there.
  range(name) {
    const {low, high} = this.#rows.get(name);
    return [low, high].map((end) => (Math.abs(end) < 0.3 ? 0 : end));
  }

  set(name, value) {
    this.#rows.get(name).slider.value = value;
    this.#show(name);
  }

  setAll(strengths) {
    for (const [name, {unit}] of this.#rows) {
      if (unit.reach) this.set(name, strengths[name] ?? 0);
    }
  }

  // Returns the nearest strength that a slider can show; 0 if there is none.
  fit(name, value) {
    const reach = this.unit(name)?.reach ?? 0;
    return Math.round(Math.max(-reach, Math.min(reach, value)) * 10) / 10;
  }

  // Shows only sliders whose name contains the text; returns how many.
  filter(text) {
    const fold = (own) => own.trim().toLowerCase().replaceAll('_', ' ');
    let count = 0;
    for (const {unit, row} of this.#rows.values()) {
      row.hidden = !fold(`${unit.label} ${unit.name}`).includes(fold(text));
      count += !row.hidden;
    }
    for (const set of this.place.children) {
      set.hidden = !set.querySelector('.unit:not([hidden])');
    }
    return count;
  }

  #show(name) {
    const {slider, output, reset, unit, low, high} = this.#rows.get(name);
    const value = Number(slider.value);
    const text = showStrength(value);
    // A step of the slider beyond is rounding.
    const isBeyond = value > high + 0.1 || value < low - 0.1;
    output.textContent = `${text} σ`;
    output.classList.toggle('beyond', isBeyond);
    output.title = isBeyond ? 'Beyond what is known to work for this picture' : '';
    slider.setAttribute(
      'aria-valuetext',
      `${text} standard deviations${isBeyond ? ', beyond what works' : ''}`,
    );
    slider.style.setProperty('--at', (value / unit.reach + 1) / 2);
    reset.disabled = value === 0;
  }
}
