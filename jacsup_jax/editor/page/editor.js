// The page: what is chosen and set, and what happens when that changes.

import * as server from './server.js';
import {Sliders, make, showStrength} from './sliders.js';

const $ = (id) => document.getElementById(id);
const SMOOTH_FROM = 128; // smaller images are enlarged with sharp pixels

let offer = null; // answer of /api/models
let model = null; // the chosen model, with its units
let photo = null; // {id, sample, file}: `sample` its number or `file` its File
let set = {strengths: {}, detail: 0};
let loading = new AbortController();
let telling = null;

const sliders = new Sliders($('groups'), onMove);
const edits = server.makeLatest((bitmap, content) => {
  draw($('edit'), bitmap);
  say('');
  $('edit').dispatchEvent(new CustomEvent('painted', {detail: content}));
}, onFailure);

// Shows an error until something succeeds.
function say(line) {
  $('error').textContent = line;
  $('error').hidden = !line;
}

function onFailure(error) {
  const isRefused = error instanceof server.Refused;
  say(isRefused ? error.message : 'The server does not answer. Is it running?');
}

// Loads a model or a photo; a new choice ends it.
async function attempt(work) {
  loading.abort();
  const own = new AbortController();
  loading = own;
  edits.cancel();
  $('main').setAttribute('aria-busy', 'true');
  try {
    await work(own.signal);
    if (!own.signal.aborted) say('');
  } catch (error) {
    if (own.signal.aborted) return;
    onFailure(error);
    if (model) $('model').value = model.id;
    $('shown').textContent = photo ? describe() : 'Choose a sample or a photo.';
  }
  if (loading === own) $('main').removeAttribute('aria-busy');
}

function useModel(id, sample = null, wanted = null) {
  const file = sample === null ? photo?.file : null;
  const number = sample ?? photo?.sample ?? 0;
  if (!offer.models.some((own) => own.id === id)) id = offer.models[0].id;
  $('model').value = id;
  $('shown').textContent = 'Loading the model …';
  return attempt(async (signal) => {
    const found = await server.describeModel(id, signal);
    if (signal.aborted) return;
    const isOther = model?.id !== found.id;
    model = found;
    photo = null;
    if (isOther) {
      sliders.build(model.units, model.groups);
      $('filter').value = '';
      filter();
      document.title = `${model.title} – Editor`;
      $('can_align').hidden = !offer.can_align || model.channels !== 3;
      await showSamples(signal);
    }
    if (wanted || isOther) begin(wanted ?? set);
    if (file) await takeFile(file, signal);
    else if (model.samples) {
      await take({sample: Math.min(number, model.samples - 1)}, signal);
    } else $('shown').textContent = 'Choose a photo to begin.';
  });
}

function usePhoto(file) {
  if (!model || !file) return;
  // Checked here: browsers rarely show the refusal of a long upload.
  if (file.size > offer.largest_photo) {
    const most = Math.floor(offer.largest_photo / 2 ** 20);
    say(`This file is not an image we can open (it is larger than ${most} MB).`);
    return;
  }
  attempt((signal) => takeFile(file, signal));
}

async function takeFile(file, signal) {
  const align = $('align').checked && !$('can_align').hidden;
  const added = await server.addPhoto(model.id, file, align, signal);
  await take({id: added.photo, file}, signal);
  $('no_face').hidden = !align || added.is_aligned;
}

async function take({id, sample = null, file = null}, signal) {
  id ??= `sample-${sample}`;
  const names = ['original', 'reconstruction'];
  const bitmaps = await Promise.all(
    names.map((name) => server.drawPhoto(model.id, id, name, signal)),
  );
  if (signal.aborted) return;
  photo = {id, sample, file};
  $('no_face').hidden = true;
  names.forEach((name, i) => draw($(name), bitmaps[i]));
  for (const choice of $('samples').querySelectorAll('input')) {
    choice.checked = Number(choice.value) === sample;
  }
  refresh();
}

async function showSamples(signal) {
  $('samples').replaceChildren();
  $('no_samples').hidden = model.samples > 0;
  $('no_samples').textContent = `No samples: ${model.without_samples}`;
  if (!model.samples) return;
  const bitmap = await server.drawSamples(model.id, signal);
  if (signal.aborted) return;
  for (let number = 0; number < model.samples; number += 1) {
    const title = `Sample ${number}`;
    const label = make('label', {title});
    const choice = make('input', {
      type: 'radio', name: 'sample', value: number, className: 'hidden_input',
      ariaLabel: title,
      onchange: () => attempt((own) => take({sample: number}, own)),
    });
    const canvas = make('canvas');
    draw(canvas, bitmap, number, model.samples);
    label.append(choice, canvas);
    $('samples').append(label);
  }
}

// Takes over the settings that the model has.
function begin(wanted) {
  set = {strengths: {}, detail: wanted.detail};
  for (const [name, value] of Object.entries(wanted.strengths)) {
    const own = sliders.fit(name, value);
    if (own) set.strengths[name] = own;
  }
  sliders.setAll(set.strengths);
  $('detail').value = Math.round(set.detail * 100);
  showDetail();
}

function onMove(name, value) {
  if (value) set.strengths[name] = value;
  else delete set.strengths[name];
  refresh();
}

function showDetail() {
  $('detail_value').textContent = `${$('detail').value} %`;
  $('detail').style.setProperty('--at', $('detail').value / 100);
}

function refresh() {
  if (!photo) return;
  edits.ask({
    model: model.id, photo: photo.id, strengths: {...set.strengths},
    keep_detail: set.detail,
  });
  clearTimeout(telling);
  // Screen readers announce the last of several values only.
  telling = setTimeout(() => {
    if (!photo) return;
    $('shown').textContent = describe();
    $('edit').setAttribute('aria-label', `Edit of ${describe()}`);
    history.replaceState(null, '', makeLink());
  }, 300);
}

function describe() {
  const moved = Object.entries(set.strengths).map(
    ([name, value]) => `${sliders.unit(name).label} ${showStrength(value)} σ`,
  );
  if (set.detail) moved.push(`detail ${Math.round(set.detail * 100)} %`);
  const what = photo.file ? 'Your photo' : `Sample ${photo.sample}`;
  return `${what}: ${moved.join(', ') || 'nothing moved'}`;
}

// Draws a bitmap, or part `number` of `count` that stand side by side.
function draw(canvas, bitmap, number = 0, count = 1) {
  const {height} = bitmap;
  const width = bitmap.width / count;
  Object.assign(canvas, {width, height});
  canvas.classList.toggle('pixelated', width < SMOOTH_FROM);
  const box = [number * width, 0, width, height, 0, 0, width, height];
  canvas.getContext('2d').drawImage(bitmap, ...box);
}

function filter() {
  const text = $('filter').value;
  $('none_found').hidden = sliders.filter(text) > 0;
  $('none_found').textContent = `No slider is called “${text}”.`;
}

function download() {
  if (!photo) return;
  const name = describe().replaceAll('−', '-').replaceAll(' σ', '');
  const download = `${name.replace(/[^\w.+-]+/g, '_').slice(0, 120)}.png`;
  $('edit').toBlob((blob) => {
    const link = make('a', {href: URL.createObjectURL(blob), download});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, 'image/png');
}

// Makes a link: model, sample and settings after the # of the address.
function makeLink() {
  const link = new URLSearchParams({model: model.id});
  if (photo.sample !== null) link.set('sample', photo.sample);
  const moved = Object.entries(set.strengths).map((own) => own.join(':'));
  if (moved.length) link.set('set', moved.join(','));
  if (set.detail) link.set('detail', set.detail);
  return `#${link.toString().replaceAll('%3A', ':').replaceAll('%2C', ',')}`;
}

// Ignores what it cannot read: a link may come from anywhere.
function useLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const wanted = {strengths: {}, detail: Number(link.get('detail') ?? 0)};
  if (!(wanted.detail >= 0 && wanted.detail <= 1)) wanted.detail = 0;
  for (const entry of (link.get('set') ?? '').split(',')) {
    const at = entry.lastIndexOf(':');
    const value = Number(entry.slice(at + 1) || NaN);
    if (at > 0 && Number.isFinite(value)) {
      wanted.strengths[entry.slice(0, at)] = value;
    }
  }
  const sample = Number(link.get('sample') ?? NaN);
  const isSample = Number.isInteger(sample) && sample >= 0;
  const start = isSample ? sample : photo?.file ? null : 0;
  return useModel(link.get('model'), start, wanted);
}

function listen() {
  const on = (id, event, work) => $(id).addEventListener(event, work);
  on('model', 'change', () => useModel($('model').value));
  on('file', 'change', () => {
    const [file] = $('file').files;
    $('file').value = ''; // so that the same file can be chosen again
    usePhoto(file);
  });
  on('align', 'change', () => usePhoto(photo?.file));
  on('detail', 'input', () => {
    set.detail = Number($('detail').value) / 100;
    showDetail();
    refresh();
  });
  on('reset', 'click', () => {
    begin({strengths: {}, detail: 0});
    refresh();
  });
  on('download', 'click', download);
  on('filter', 'input', filter);
  window.addEventListener('hashchange', useLink);
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault(); // The address holds the settings.
    $('units').focus();
  });
  document.addEventListener('dragover', (event) => {
    if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
  });
  document.addEventListener('drop', (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    usePhoto(event.dataTransfer.files[0]);
  });
}

listen();
await attempt(async () => {
  offer = await server.listModels();
});
if (offer) {
  for (const {id, group, title} of offer.models) {
    $('model').append(new Option(group ? `${group}: ${title}` : title, id));
  }
  await useLink();
}
