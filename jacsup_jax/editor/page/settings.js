// What is set: strengths by unit, how much detail is kept; its past, and links.

export const nothingSet = () => ({strengths: {}, detail: 0});

export const copy = (settings) => ({
  strengths: {...settings.strengths},
  detail: settings.detail,
});

export const isSame = (one, other) =>
  JSON.stringify(order(one)) === JSON.stringify(order(other));

const order = ({strengths, detail}) => [
  Object.entries(strengths).sort(([a], [b]) => (a < b ? -1 : 1)),
  detail,
];

// `+1.5`, with a true minus sign.
export function showStrength(value) {
  const sign = value > 0 ? '+' : value < 0 ? '−' : '';
  return sign + Math.abs(value).toFixed(1);
}

// Steps that can be taken back, and taken again.
export class History {
  #steps = [];
  #at = -1;
  #last = null;

  begin(settings) {
    this.#steps = [copy(settings)];
    this.#at = 0;
    this.#last = null;
  }

  // `what` names what was moved: quick moves of one thing are one step.
  add(settings, what = null, now = performance.now()) {
    if (isSame(settings, this.#steps[this.#at])) return;
    const goesOn =
      what !== null && this.#last?.what === what && now - this.#last.time < 700;
    if (!goesOn) this.#at += 1;
    this.#steps.length = this.#at;
    this.#steps.push(copy(settings));
    this.#last = {what, time: now};
    // A day's moves are no use.
    if (this.#steps.length > 500) {
      this.#steps.shift();
      this.#at -= 1;
    }
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#steps.length - 1;
  }

  // `by` is -1 or 1; returns the settings there, or null.
  go(by) {
    const next = this.#steps[this.#at + by];
    if (!next) return null;
    this.#at += by;
    this.#last = null;
    return copy(next);
  }
}

// The part of the address after #. `sample` is null of a photo of one's own.
export function writeLink({model, sample, settings}) {
  const link = new URLSearchParams({model});
  if (sample !== null) link.set('sample', sample);
  const set = Object.entries(settings.strengths)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => `${name}:${value}`);
  if (set.length) link.set('set', set.join(','));
  if (settings.detail) link.set('detail', settings.detail);
  return `#${link.toString().replaceAll('%3A', ':').replaceAll('%2C', ',')}`;
}

// What cannot be read is left out: a link may come from anywhere.
export function readLink(hash) {
  const link = new URLSearchParams(hash.replace(/^#/, ''));
  const settings = nothingSet();
  for (const entry of (link.get('set') ?? '').split(',')) {
    const at = entry.lastIndexOf(':');
    const value = Number(entry.slice(at + 1) || NaN);
    if (at > 0 && Number.isFinite(value)) {
      settings.strengths[entry.slice(0, at)] = value;
    }
  }
  const detail = Number(link.get('detail') ?? 0);
  if (detail >= 0 && detail <= 1) settings.detail = detail;
  const sample = Number(link.get('sample') ?? NaN);
  return {
    model: link.get('model'),
    sample: Number.isInteger(sample) && sample >= 0 ? sample : null,
    settings,
  };
}
