// Settings in the address of the page, after its #.

// Makes a link: a model, a sample and settings.
export function makeLink(model, sample, {strengths, detail}, isCompared) {
  const link = new URLSearchParams({model});
  if (sample !== null) link.set('sample', sample);
  const moved = Object.entries(strengths).map((own) => own.join(':'));
  if (moved.length) link.set('set', moved.join(','));
  link.set('detail', detail);
  if (isCompared) link.set('compare', 1);
  return `#${link.toString().replaceAll('%3A', ':').replaceAll('%2C', ',')}`;
}

// Reads a link, and ignores what it cannot read: it may come from anywhere.
// `set` and `sample` are null if it does not say.
export function readLink(hash) {
  const link = new URLSearchParams(hash.slice(1));
  const set = {strengths: {}, detail: Number(link.get('detail') ?? 0)};
  if (!(set.detail >= 0 && set.detail <= 1)) set.detail = 0;
  for (const entry of (link.get('set') ?? '').split(',')) {
    const at = entry.lastIndexOf(':');
    const value = Number(entry.slice(at + 1) || NaN);
    if (at > 0 && Number.isFinite(value)) {
      set.strengths[entry.slice(0, at)] = value;
    }
  }
  const sample = Number(link.get('sample') ?? NaN);
  const says = ['sample', 'set', 'detail'].some((key) => link.has(key));
  return {
    model: link.get('model'),
    sample: Number.isInteger(sample) && sample >= 0 ? sample : null,
    set: says ? set : null,
    isCompared: link.get('compare') === '1',
  };
}
