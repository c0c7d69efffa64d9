// Sliders of a model's units, in groups.

export const make = (tag, options = {}) =>
  Object.assign(document.createElement(tag), options);

// `+1.5`, with a true minus sign.
export function showStrength(value) {
  const sign = value > 0 ? '+' : value < 0 ? '−' : '';
  return sign + Math.abs(value).toFixed(1);
}

export class Sliders {
  #rows = new Map(); // by the name of a unit

  // Calls `onMove(name, value)` when a slider moves.
  constructor(place, onMove) {
    Object.assign(this, {place, onMove});
  }

  build(units, groups) {
    this.#rows.clear();
    this.place.replaceChildren();
    for (const group of groups) {
      const own = units.filter((unit) => unit.group === group);
      if (!own.length) continue;
      const set = make('fieldset');
      const rows = own.map((unit) => this.#buildRow(unit));
      set.append(make('legend', {textContent: group}), ...rows);
      this.place.append(set);
    }
  }

  #buildRow(unit) {
    const {name, label, reach} = unit;
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
    row.append(caption, slider, output, reset);
    this.#rows.set(name, {unit, row, slider, output, reset});
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
    const {slider, output, reset, unit} = this.#rows.get(name);
    const value = Number(slider.value);
    const text = showStrength(value);
    output.textContent = `${text} σ`;
    slider.setAttribute('aria-valuetext', `${text} standard deviations`);
    slider.style.setProperty('--at', (value / unit.reach + 1) / 2);
    reset.disabled = value === 0;
  }
}
