// The page: what is chosen and set, and what happens when that changes.

import * as pictures from './pictures.js';
import * as server from './server.js';
import * as settings from './settings.js';
import {Sliders} from './sliders.js';
import {Strip} from './strip.js';
import {offerThemes} from './theme.js';

const $ = (id) => document.getElementById(id);
const RETRY = 1500; // Milliseconds.

let offer = null; // What /api/models has told.
let model = null; // The chosen one, with its units.
// What is edited: `id` for the server; `sample` its number, or `file` if it is
// a photo of one's own.
let photo = null;
let set = settings.nothingSet();
let chosen = null; // The unit of the strip.
let loading = new AbortController();
const past = new settings.History();

const sliders = new Sliders($('groups'), onMove, choose);
const edits = new server.Latest(server.drawEdit, showEdit, onFailure);
const strip = new Strip($('strip'), $('strip_title'), {
  onTake,
  onAnswer,
  onFailure,
});

// Errors: one line, until the next move.

let isGone = false; // What is said is that the server does not answer.

function say(line) {
  isGone = false;
  $('error').textContent = line;
  $('error').hidden = !line;
}

function sayGone() {
  say('The server does not answer; trying again …');
  isGone = true;
}

function onAnswer() {
  if (isGone) say('');
}

// Returns after how many milliseconds to try again; null is not at all.
function onFailure(error) {
  if (error instanceof server.Refused) {
    if (error.status === 404 && photo?.file) {
      usePhoto(photo.file); // It was dropped there, and is still here.
      return null;
    }
    say(error.message);
    return null;
  }
  sayGone();
  return RETRY;
}

// Does work of a choice, again if the server is gone; a new choice ends it.
async function attempt(work) {
  loading.abort();
  const own = new AbortController();
  loading = own;
  edits.cancel();
  strip.cancel();
  $('main').setAttribute('aria-busy', 'true');
  while (!own.signal.aborted) {
    try {
      await work(own.signal);
      if (!own.signal.aborted) say('');
      break;
    } catch (error) {
      if (own.signal.aborted) return;
      if (error instanceof server.Refused) {
        say(error.message);
        if (model) $('model').value = model.id;
        if (photo) refresh();
        else $('shown').textContent = 'Choose a sample or a photo to begin.';
        break;
      }
      sayGone();
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
  if (loading === own) $('main').removeAttribute('aria-busy');
}

// Models and photos.

function useModel(id, sample = null, restored = null) {
  const file = sample === null ? photo?.file : null;
  const number = sample ?? photo?.sample ?? 0;
  if (![...$('model').options].some((option) => option.value === id)) {
    id = offer.models[0].id;
  }
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
      chosen = null;
      for (const name of ['original', 'reconstruction', 'edit']) {
        pictures.clear($(name));
      }
      document.title = `${model.title} – Editor`;
      $('model').title = model.title;
      showAlignment();
      await showSamples(signal);
    }
    if (restored || isOther) begin(restored ?? set);
    if (file) await takeFile(file, signal);
    else if (model.samples) {
      await take({sample: Math.min(number, model.samples - 1)}, signal);
    } else $('shown').textContent = 'Choose a photo to begin.';
  });
}

const useSample = (sample) => attempt((signal) => take({sample}, signal));

function usePhoto(file) {
  if (!model) return;
  // Said here: a server that refuses a long upload is hardly heard.
  if (file.size > offer.largest_photo) {
    const most = Math.floor(offer.largest_photo / 2 ** 20);
    say(`${file.name} is larger than ${most} MB; accepted: smaller photos.`);
    return;
  }
  attempt((signal) => takeFile(file, signal));
}

async function takeFile(file, signal) {
  const align = $('align').checked && !$('align').disabled;
  const added = await server.addPhoto(model.id, file, align, signal);
  $('no_face').hidden = !align || added.is_aligned;
  await take({id: added.photo, file}, signal);
}

async function take({id, sample = null, file = null}, signal) {
  id ??= `sample-${sample}`;
  const draw = (which) => server.drawPhoto(model.id, id, which, signal);
  const [original, reconstruction] = await Promise.all([
    draw('original'),
    draw('reconstruction'),
  ]);
  if (signal.aborted) return;
  photo = {id, sample, file};
  if (!file) $('no_face').hidden = true;
  pictures.draw($('original'), original);
  pictures.draw($('reconstruction'), reconstruction);
  for (const choice of $('samples').querySelectorAll('input')) {
    choice.checked = Number(choice.value) === sample;
  }
  refresh();
}

async function showSamples(signal) {
  $('samples').replaceChildren();
  $('samples').hidden = !model.samples;
  $('no_samples').hidden = Boolean(model.samples);
  $('no_samples').textContent = model.samples
    ? ''
    : `No samples: ${model.without_samples}`;
  if (!model.samples) return;
  const bitmap = await server.drawSamples(model.id, signal);
  if (signal.aborted) return;
  for (let number = 0; number < model.samples; number += 1) {
    const label = document.createElement('label');
    const choice = document.createElement('input');
    choice.type = 'radio';
    choice.name = 'sample';
    choice.value = number;
    choice.className = 'hidden_input';
    choice.setAttribute('aria-label', `Sample ${number}`);
    choice.addEventListener('change', () => useSample(number));
    const canvas = document.createElement('canvas');
    pictures.drawPart(canvas, bitmap, number, model.samples);
    label.title = `Sample ${number}`;
    label.append(choice, canvas);
    $('samples').append(label);
  }
}

function showAlignment() {
  const canAlign = offer.can_align && model.is_faces;
  $('align').disabled = !canAlign;
  $('align').parentElement.hidden = !canAlign;
  $('no_align').hidden = canAlign || !model.is_faces;
}

// Settings.

// Takes settings over, as far as the model has them, and forgets what was.
function begin(wanted) {
  set = fit(wanted);
  past.begin(set);
  showSet();
  choose(
    Object.keys(set.strengths).find((name) => set.strengths[name]) ??
      sliders.movable[0],
  );
}

function fit({strengths, detail}) {
  const fitted = {};
  for (const [name, value] of Object.entries(strengths)) {
    const own = sliders.fit(name, value);
    if (own) fitted[name] = own;
  }
  return {strengths: fitted, detail};
}

function onMove(name, value, step) {
  if (value) set.strengths[name] = value;
  else delete set.strengths[name];
  if (step !== 'none') past.add(set, step === 'same' ? name : null);
  if (!isGone) say('');
  choose(name);
  refresh();
}

function choose(name) {
  chosen = name ?? null;
  sliders.choose(chosen);
  refreshStrip();
}

function onTake(value) {
  sliders.set(chosen, value);
  onMove(chosen, value, 'own');
}

// Takes settings over, as one step of the past.
function change(wanted) {
  set = wanted;
  past.add(set);
  showSet();
  refresh();
}

function go(by) {
  const found = past.go(by);
  if (!found) return;
  set = found;
  showSet();
  refresh();
}

function surprise() {
  const units = sliders.movable.map((name) => sliders.unit(name));
  const strengths = {};
  const count = Math.min(units.length, 2 + Math.floor(Math.random() * 3));
  for (let i = 0; i < count; i += 1) {
    const at = Math.floor(Math.random() * units.length);
    const [unit] = units.splice(at, 1);
    const size = 1 + Math.random() * (unit.reach * 0.8 - 1);
    const value = Math.random() < 0.5 ? -size : size;
    strengths[unit.name] = sliders.fit(unit.name, value);
  }
  change({strengths, detail: set.detail});
}

// What is shown.

function showSet() {
  sliders.setAll(set.strengths);
  $('detail').value = Math.round(set.detail * 100);
  showDetail();
}

function showDetail() {
  const text = `${$('detail').value} %`;
  $('detail_value').textContent = text;
  $('detail').setAttribute('aria-valuetext', text);
  $('detail').style.setProperty('--at', $('detail').value / 100);
}

const request = () => ({
  model: model.id,
  photo: photo.id,
  strengths: {...set.strengths},
  keep_detail: set.detail,
});

function refresh() {
  const isSet = !settings.isSame(set, settings.nothingSet());
  $('undo').disabled = !past.canUndo;
  $('redo').disabled = !past.canRedo;
  $('reset').disabled = !isSet;
  if (!photo) return;
  edits.ask(request());
  refreshStrip();
  tell();
}

function refreshStrip() {
  if (!photo || !chosen) return strip.cancel();
  strip.refresh(request(), sliders.unit(chosen));
}

function showEdit(bitmap, content) {
  pictures.draw($('edit'), bitmap);
  onAnswer();
  $('edit').dispatchEvent(new CustomEvent('painted', {detail: content}));
}

function describe() {
  const moved = Object.entries(set.strengths).map(
    ([name, value]) =>
      `${sliders.unit(name).label} ${settings.showStrength(value)} σ`,
  );
  if (set.detail) moved.push(`detail ${Math.round(set.detail * 100)} %`);
  const what = photo.file ? 'Your photo' : `Sample ${photo.sample}`;
  return `${what}: ${moved.join(', ') || 'nothing moved'}`;
}

let telling = null;
// Not while dragging: of a long row of values the last is of interest.
function tell() {
  $('linked').hidden = true;
  $('address').hidden = true;
  clearTimeout(telling);
  telling = setTimeout(() => {
    if (!photo) return;
    $('shown').textContent = describe();
    $('edit').setAttribute('aria-label', `Edit of ${describe()}`);
    history.replaceState(null, '', makeLink());
  }, 300);
}

const makeLink = () =>
  settings.writeLink({model: model.id, sample: photo.sample, settings: set});

function useLink() {
  const link = settings.readLink(location.hash);
  return useModel(
    link.model ?? offer.models[0].id,
    link.sample ?? (photo?.file ? null : 0),
    link.settings,
  );
}

async function copyLink() {
  if (!photo) return;
  history.replaceState(null, '', makeLink());
  let text = 'The link is copied.';
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    // Browsers have it for secure addresses alone.
    text = 'Copy the link:';
    $('address').value = location.href;
    $('address').hidden = false;
    $('address').focus();
    $('address').select();
  }
  if (photo.file) {
    text = `Your photo is not in the link, only its settings are. ${text}`;
  }
  $('linked').textContent = text;
  $('linked').hidden = false;
}

function filter() {
  const text = $('filter').value;
  const count = sliders.filter(text);
  $('none_found').hidden = count > 0 || !model;
  $('none_found').textContent = `No slider is called “${text}”.`;
}

function pictureName() {
  const moved = Object.entries(set.strengths).map(
    ([name, value]) => `${name}${value > 0 ? '+' : ''}${value}`,
  );
  const what = photo.file ? 'photo' : `sample-${photo.sample}`;
  const name = [what, ...moved].join('_').replace(/[^\w.+-]+/g, '-');
  return `${name.slice(0, 120)}.png`;
}

// Wires.

function listen() {
  $('model').addEventListener('change', () => useModel($('model').value));
  $('file').addEventListener('change', () => {
    const [file] = $('file').files;
    $('file').value = ''; // The same file can be chosen again.
    if (file) usePhoto(file);
  });
  $('align').addEventListener('change', () => {
    if (photo?.file) usePhoto(photo.file);
  });
  $('detail').addEventListener('input', () => {
    set.detail = Number($('detail').value) / 100;
    showDetail();
    refresh();
  });
  $('detail').addEventListener('change', () => {
    past.add(set, '');
    refresh();
  });
  $('undo').addEventListener('click', () => go(-1));
  $('redo').addEventListener('click', () => go(1));
  $('reset').addEventListener('click', () => change(settings.nothingSet()));
  $('surprise').addEventListener('click', surprise);
  $('download').addEventListener('click', () => {
    if (photo) pictures.download($('edit'), pictureName());
  });
  $('link').addEventListener('click', copyLink);
  $('filter').addEventListener('input', filter);
  window.addEventListener('hashchange', useLink);
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault(); // The address is that of the settings.
    $('units').focus();
  });
  document.addEventListener('keydown', (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    // Text has an undo of its own.
    if (event.target.matches('input[type=search], input[type=text]')) return;
    const key = event.key.toLowerCase();
    const by = key === 'y' || (key === 'z' && event.shiftKey) ? 1 : -1;
    if (key !== 'y' && key !== 'z') return;
    event.preventDefault();
    go(by);
  });
  document.addEventListener('paste', (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) usePhoto(file);
  });
  const hasFiles = (event) => event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $('drop').hidden = false;
  });
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) $('drop').hidden = true;
  });
  document.addEventListener('drop', (event) => {
    $('drop').hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) usePhoto(file);
  });
}

function showModels() {
  const groups = new Map();
  for (const {id, group, title} of offer.models) {
    const option = document.createElement('option');
    option.value = id;
    option.textContent = title;
    if (!group) {
      $('model').append(option);
      continue;
    }
    if (!groups.has(group)) {
      const own = document.createElement('optgroup');
      own.label = group;
      groups.set(group, own);
      $('model').append(own);
    }
    groups.get(group).append(option);
  }
}

offerThemes($('theme'));
listen();
await attempt(async () => {
  offer = await server.listModels();
});
if (offer) {
  showModels();
  showDetail();
  await useLink();
}
