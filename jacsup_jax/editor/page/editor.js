// The page: what is chosen and set, and what happens when that changes.

import {makeLink, readLink} from './link.js';
import {Map2d, colorOf} from './map.js';
import * as server from './server.js';
import {listenToSketch} from './sketch.js';
import {Sliders, isHigh, showStrength} from './sliders.js';
import {Strip} from './strip.js';
import {UndoStack} from './undo.js';
import {$, draw, drawBefore, listenToDivider, make, save} from './view.js';

const SETTLED_MS = 300; // without a move, before slower things are drawn

let offer = null; // answer of /api/models
let model = null; // the chosen model, with its units
let other = null; // the model that is compared, or null
// {id, sample, file, drawing, positions, unlike}: `sample` its number, `file`
// its File, or `drawing` its Blob.
let photo = null;
let bitmaps = {}; // original and reconstruction, and the other model's
let set = {strengths: {}, detail: 0};
let active = null; // name of the unit that the strip shows
let loading = new AbortController();
let settling = null;
let isOpen = false; // whether the first model is there, or has failed
let early = $('file').files[0]; // the photo that was chosen before

const past = new UndoStack();
const sliders = new Sliders($('groups'), onMove);
const strip = new Strip($('strip'), moveSlider, onFailure);
const map = new Map2d({
  place: $('map'), pad: $('pad'), picture: $('pad_picture'), across: $('across'),
  up: $('up'), marker: $('pad_marker'), origin: $('pad_origin'),
}, moveTo, onFailure);
const edits = server.makeLatest(server.drawEdit, (bitmap, content) => {
  draw($('edit'), bitmap);
  say('');
  $('edit').dispatchEvent(new CustomEvent('painted', {detail: content}));
}, onFailure);
const otherEdits = server.makeLatest(server.drawEdit, (bitmap) => {
  draw($('other_edit'), bitmap);
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
  otherEdits.cancel();
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
  const source = sample === null ? photo : null;
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
      showModel();
      await showSamples(signal);
    }
    await compare(signal);
    if (wanted || isOther) {
      begin(wanted ?? {strengths: set.strengths, detail: model.keep_detail});
    }
    past.begin(set);
    if (source?.file) await takeFile(source.file, signal);
    else if (source?.drawing && model.can_draw) {
      await takeDrawing(source.drawing, signal);
    } else if (model.samples) {
      await take({sample: Math.min(number, model.samples - 1)}, signal);
    } else $('shown').textContent = 'Choose a photo to begin.';
  });
}

// Builds what a model has controls for.
function showModel() {
  sliders.build(model.units, model.groups);
  strip.clear();
  map.build(model);
  active = model.first;
  other = null;
  $('filter').value = '';
  filter();
  document.title = `${model.title} – Editor`;
  $('about').textContent = 'Each slider changes one property of a picture and'
    + ` leaves the rest alone. Model: ${model.title}, ${model.about}.`;
  $('can_align').hidden = !offer.can_align || model.channels !== 3;
  $('can_draw').hidden = !model.can_draw;
  const classes = (model.layout?.classes ?? []).map((own, i) => ({
    ...own, color: colorOf(i), title: `Move to where ${own.label} is`,
  }));
  $('presets').hidden = !classes.length && !model.presets.length;
  $('presets').replaceChildren(...[...classes, ...model.presets].map((own) => {
    const {label, title, color} = own;
    const button = make('button', {
      type: 'button', className: 'preset', textContent: label, title: title ?? '',
    });
    if (color) button.style.setProperty('--class', color);
    button.classList.toggle('class', Boolean(color));
    button.addEventListener('click', () => {
      if (photo) moveTo(Object.entries(own.targets), !color);
    });
    return button;
  }));
}

function usePhoto(file) {
  if (!isOpen) early = file;
  if (!isOpen || !model || !file) return;
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

async function takeDrawing(drawing, signal) {
  const added = await server.addDrawing(model.id, drawing, signal);
  await take({id: added.photo, drawing}, signal);
}

async function take({id, sample = null, file = null, drawing = null}, signal) {
  id ??= `sample-${sample}`;
  const [about, ...found] = await Promise.all([
    server.describePhoto(model.id, id, signal),
    ...['original', 'reconstruction'].map((name) =>
      server.drawPhoto(model.id, id, name, signal)),
    other && server.drawPhoto(other.id, id, 'reconstruction', signal),
  ]);
  if (signal.aborted) return;
  photo = {id, sample, file, drawing, ...about};
  const [original, reconstruction, others] = found;
  bitmaps = {original, reconstruction, others};
  draw($('original'), original);
  draw($('reconstruction'), reconstruction);
  $('no_face').hidden = true;
  for (const choice of $('samples').querySelectorAll('input')) {
    choice.checked = Number(choice.value) === sample;
  }
  sliders.showRanges(photo.positions);
  showUnlike();
  showDetail();
  refresh();
  settle();
}

// Says that a photo is unlike the training data.
function showUnlike() {
  const isOwn = photo?.file || photo?.drawing;
  $('unlike').hidden = !isOwn || !photo.unlike;
  if ($('unlike').hidden) return;
  const times = photo.unlike.toFixed(photo.unlike < 10 ? 1 : 0);
  $('unlike_text').textContent = 'This picture is unlike those that the model'
    + ` was trained on: its reconstruction is off by ${times} times as much as`
    + ' is usual, more than for 99 % of them. Edits may look odd; “Keep detail”'
    + ' shows them on your picture.';
  $('use_detail').hidden = set.detail === 1;
}

// Shows the model without Jacobian supervision, or with it, beside this one.
async function compare(signal) {
  const {counterpart, title} = offer.models.find(({id}) => id === model.id);
  const found = offer.models.find(({id}) => id === counterpart);
  $('can_compare').hidden = !found;
  $('compare_label').textContent = found
    ? `Compare with: ${found.title.toLowerCase().replace('jacobian', 'Jacobian')}`
    : '';
  const isWanted = found && $('compare').checked;
  const own = isWanted ? await server.describeModel(found.id, signal) : null;
  if (signal.aborted) return;
  other = own;
  $('other_view').hidden = $('own_caption').hidden = !other;
  $('own_caption').textContent = title;
  $('other_caption').textContent = found?.title ?? '';
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
    draw(canvas, bitmap, {col: number, cols: model.samples});
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
  active = Object.keys(set.strengths).at(-1) ?? active;
  showDetail();
}

function change(wanted) {
  begin(wanted);
  refresh();
}

function onMove(name, value) {
  if (value) set.strengths[name] = value;
  else delete set.strengths[name];
  active = name;
  refresh();
}

function moveSlider(name, value) {
  const own = sliders.fit(name, value);
  sliders.set(name, own);
  onMove(name, own);
}

// Moves units to positions, whatever those of the photo are; if `isAttribute`,
// a photo that has an attribute, or lacks it, as is wanted, stays.
function moveTo(positions, isAttribute = false) {
  for (const [name, position] of positions) {
    const place = photo.positions[name];
    const unit = sliders.unit(name);
    const isThere = isAttribute && isHigh(unit, place) === isHigh(unit, position);
    moveSlider(name, isThere ? 0 : position - place);
  }
  [[active]] = positions;
}

function showDetail() {
  $('detail').value = Math.round(set.detail * 100);
  $('detail_value').textContent = `${$('detail').value} %`;
  $('detail').style.setProperty('--at', $('detail').value / 100);
  $('use_detail').hidden = set.detail === 1;
  if (!photo) return;
  drawBefore($('before'), bitmaps, set.detail);
  if (other) {
    const {original, others: reconstruction} = bitmaps;
    drawBefore($('other_before'), {original, reconstruction}, set.detail);
  }
}

// What a request for an edit says; another model may lack sliders.
function makeContent(own = model) {
  const strengths = {...set.strengths};
  for (const name of Object.keys(strengths)) {
    const isMovable = (unit) => unit.name === name && unit.reach;
    if (!own.units.some(isMovable)) delete strengths[name];
  }
  return {
    model: own.id, photo: photo.id, strengths, keep_detail: set.detail,
  };
}

function refresh() {
  if (!photo) return;
  edits.ask(makeContent());
  if (other) otherEdits.ask(makeContent(other));
  map.show(photo, makeContent());
  clearTimeout(settling);
  settling = setTimeout(settle, SETTLED_MS);
}

// Draws and says what may wait until nothing moves.
function settle() {
  if (!photo) return;
  // Screen readers announce the last of several values only.
  $('shown').textContent = describe();
  $('edit').setAttribute('aria-label', `Edit of ${describe()}`);
  const link = makeLink(model.id, photo.sample, set, other !== null);
  history.replaceState(null, '', link);
  past.add(set);
  $('undo').disabled = !past.canUndo;
  $('redo').disabled = !past.canRedo;
  const unit = sliders.unit(active);
  if (unit?.reach) strip.show(unit, ...sliders.range(active), makeContent());
  map.settle();
}

function takeBack(by) {
  if (photo) settle(); // What is moving now can be taken back as well.
  const state = past.step(by);
  if (!state) return;
  change(state);
  settle();
}

function describe() {
  const moved = Object.entries(set.strengths).map(
    ([name, value]) => `${sliders.unit(name).label} ${showStrength(value)} σ`,
  );
  if (!moved.length) moved.push('nothing moved');
  if (set.detail) moved.push(`detail ${Math.round(set.detail * 100)} %`);
  const own = photo.file ? 'Your photo' : 'Your drawing';
  const what = photo.sample === null ? own : `Sample ${photo.sample}`;
  return `${what}: ${moved.join(', ')}`;
}

function filter() {
  const text = $('filter').value;
  $('none_found').hidden = sliders.filter(text) > 0;
  $('none_found').textContent = `No slider is called “${text}”.`;
}

// Saves the edit as a file; an animation of nothing is that of the strip.
async function download(format, button) {
  if (!photo) return;
  const content = {...makeContent(), format};
  if (format === 'gif' && !Object.keys(content.strengths).length && active) {
    const [low, high] = sliders.range(active);
    Object.assign(content, {start: {[active]: low}, strengths: {[active]: high}});
  }
  const name = describe().replaceAll('−', '-').replaceAll(' σ', '');
  const file = `${name.replace(/[^\w.+-]+/g, '_').slice(0, 120)}.${format}`;
  button.disabled = true;
  try {
    save(await server.makeFile(content), file);
    say('');
  } catch (error) {
    onFailure(error);
  }
  button.disabled = false;
}

async function copyLink() {
  settle();
  try {
    await navigator.clipboard.writeText(location.href);
    $('copy').textContent = 'Copied';
  } catch { // Without https, or if the user refuses.
    $('copy').textContent = 'Copy the address';
  }
  setTimeout(() => ($('copy').textContent = 'Copy link'), 2000);
}

function useLink() {
  const {model: id, sample, set: wanted, isCompared} = readLink(location.hash);
  $('compare').checked = isCompared;
  const isOwn = photo !== null && photo.sample === null;
  return useModel(id, sample ?? (isOwn ? null : 0), wanted);
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
  on('use_detail', 'click', () => change({...set, detail: 1}));
  on('reset', 'click', () =>
    change({strengths: {}, detail: model?.keep_detail ?? 0}));
  on('undo', 'click', () => takeBack(-1));
  on('redo', 'click', () => takeBack(1));
  on('download', 'click', () => download('png', $('download')));
  on('animate', 'click', () => download('gif', $('animate')));
  on('copy', 'click', copyLink);
  on('compare', 'change', () => attempt(async (signal) => {
    await compare(signal);
    if (photo && !signal.aborted) await take(photo, signal);
  }));
  on('filter', 'input', filter);
  listenToDivider($('divider'), $('pictures'));
  listenToSketch($('sketch'), $('clear'), (blob) => {
    if (model?.can_draw) attempt((signal) => takeDrawing(blob, signal));
  });
  window.addEventListener('hashchange', useLink);
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault(); // The address holds the settings.
    $('groups').focus();
  });
  document.addEventListener('keydown', (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (event.target === $('filter') || !['y', 'z'].includes(key)) return;
    event.preventDefault();
    takeBack(key === 'z' && !event.shiftKey ? -1 : 1);
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
  isOpen = true;
  usePhoto(early);
}
