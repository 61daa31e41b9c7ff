"use strict";

// What Python put on the page: frames as pictures, maps as bytes that are scaled to each map's own peak.
const data = JSON.parse(document.getElementById("data").textContent);
const [times, rows, columns] = data.grid;
const places = rows * columns;
const images = data.frames.map((url) => Object.assign(new Image(), { src: url }));
const maps = { rollout: decoded(data.rollout), relevance: decoded(data.relevance) };
const layers = data.layers.map((layer) => ({
  ...layer,
  space: layer.space && decoded(layer.space),
  time: layer.time && decoded(layer.time),
}));
const part = (id) => document.getElementById(id);
const INFERNO = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"];
const palette = INFERNO.map((color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16)));
const CELL = 18; // pixels of one cell of the matrix over time
const LEAST = 448; // pixels that the picture is at least wide
let playing = 0;

function decoded(map) {
  return { peaks: map.peaks, bytes: Uint8Array.from(atob(map.bytes), (letter) => letter.charCodeAt(0)) };
}

function color(byte) {
  const place = (byte / 255) * (palette.length - 1);
  const low = Math.min(Math.floor(place), palette.length - 2);
  return palette[low].map((value, channel) => Math.round(value + (place - low) * (palette[low + 1][channel] - value)));
}

/** What is chosen at the moment. */
function state() {
  const frame = Number(part("time").value);
  return {
    frame,
    time: data.token_of_frame[frame],
    over: document.querySelector("input[name=over]:checked").value,
    opacity: Number(part("opacity").value) / 100,
    layer: layers[Number(part("layer").value)],
    head: Number(part("head").value),
  };
}

/** The bytes of a map at a time index, and the value that 255 stands for; null where there is none. */
function mapAt({ over, layer, head, time }) {
  const map = over === "attention" ? layer.space : maps[over];
  if (!map) return null;
  const number = over === "attention" ? head : 0;
  const start = (number * times + time) * places;
  return { bytes: map.bytes.subarray(start, start + places), peak: map.peaks[number] };
}

function drawCells(context, bytes, across, width, height) {
  bytes.forEach((byte, cell) => {
    const [row, column] = [Math.floor(cell / across), cell % across];
    context.fillStyle = `rgb(${color(byte)})`;
    context.fillRect(column * width, row * height, width, height);
  });
}

function drawPicture(now) {
  const canvas = part("picture");
  const image = images[now.frame];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = image.naturalWidth > 96;
  context.globalAlpha = 1;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const map = mapAt(now);
  if (!map) return;
  const heat = new OffscreenCanvas(columns, rows);
  drawCells(heat.getContext("2d"), map.bytes, columns, 1, 1);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = now.opacity;
  context.drawImage(heat, 0, 0, canvas.width, canvas.height);
}

function drawScale(now) {
  const context = part("scale").getContext("2d");
  for (let byte = 0; byte < 256; byte++) {
    context.fillStyle = `rgb(${color(byte)})`;
    context.fillRect(byte, 0, 1, 1);
  }
  const map = mapAt(now);
  part("peak").textContent = map ? map.peak.toPrecision(2) : "-";
}

function drawHeads(now) {
  const { space, heads } = now.layer;
  part("heads-note").textContent = space
    ? "At the frame shown, each head on its own scale. Choose one to lay it over the frame."
    : "The tokens of this encoder are whole frames: it has no map over space, only the attention over time below.";
  part("heads").hidden = !space;
  if (!space) return;
  [...part("heads").children].forEach((button, head) => {
    button.setAttribute("aria-pressed", String(head === now.head));
    const map = mapAt({ ...now, over: "attention", head });
    drawCells(button.querySelector("canvas").getContext("2d"), map.bytes, columns, 1, 1);
    button.title = `${heads[head]}, up to ${map.peak.toPrecision(2)}`;
  });
}

function drawOverTime(now) {
  const { time } = now.layer;
  const canvas = part("over-time");
  canvas.hidden = !time;
  if (!time) {
    part("over-time-note").textContent = "This attention stays within each frame.";
    return;
  }
  const first = now.layer.class_row ? 1 : 0;
  const height = times + first;
  [canvas.width, canvas.height] = [times * CELL, height * CELL];
  const context = canvas.getContext("2d");
  const start = now.head * height * times;
  drawCells(context, time.bytes.subarray(start, start + height * times), times, CELL, CELL);
  context.strokeStyle = "#4de3ff";
  context.lineWidth = 2;
  context.strokeRect(1, (now.time + first) * CELL + 1, times * CELL - 2, CELL - 2);
  const top = first ? "The top row is the class token's query; the others are" : "Rows are";
  part("over-time-note").textContent =
    `${top} the time index that asks, columns the one that is asked, up to ${time.peaks[now.head].toPrecision(2)}. ` +
    `The framed row is the frame shown: time index ${now.time + 1} of ${times}.`;
}

/** What the picture shows, in a sentence. */
function sentence(now) {
  const where = `Frame ${now.frame + 1} of ${images.length}, ${data.stamps[now.frame].toFixed(2)} ${data.unit}.`;
  if (now.over === "none") return where;
  const what = {
    attention: `${now.layer.title}, ${now.layer.heads[now.head].toLowerCase()}`,
    rollout: "Attention rollout",
    relevance: `Relevance of ${data.target}`,
  }[now.over];
  const map = mapAt(now);
  if (!map) return `${where} ${what}: no map over space.`;
  const best = map.bytes.indexOf(Math.max(...map.bytes));
  if (!map.bytes[best]) return `${where} ${what}: nothing in this frame.`;
  const [row, column] = [Math.floor(best / columns) + 1, (best % columns) + 1];
  const value = ((map.bytes[best] / 255) * map.peak).toPrecision(2);
  return `${where} ${what}: strongest in row ${row} of ${rows}, column ${column} of ${columns}, ${value}.`;
}

function draw() {
  const now = state();
  drawPicture(now);
  drawScale(now);
  drawHeads(now);
  drawOverTime(now);
  const told = sentence(now);
  part("said").textContent = told;
  part("picture").setAttribute("aria-label", told);
  part("time-value").textContent = `${now.frame + 1} of ${images.length}, ${data.stamps[now.frame].toFixed(2)} ${data.unit}`;
  part("time").setAttribute("aria-valuetext", part("time-value").textContent);
  part("opacity-value").textContent = `${part("opacity").value} %`;
}

/** The heads of the chosen layer, as choices and as tiles. */
function offerHeads() {
  const { heads, space } = layers[Number(part("layer").value)];
  part("head").replaceChildren(...heads.map((name, head) => new Option(name, head)));
  part("heads").replaceChildren(...(space ? heads.map(tile) : []));
}

function tile(name, head) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  canvas.setAttribute("aria-hidden", "true");
  const label = Object.assign(document.createElement("span"), { textContent: name });
  button.append(canvas, label);
  button.addEventListener("click", () => {
    part("head").value = head;
    chooseAttention();
  });
  return button;
}

function chooseAttention() {
  document.querySelector("input[value=attention]").checked = true;
  draw();
}

function play() {
  const on = !playing;
  clearInterval(playing);
  playing = on ? setInterval(step, Math.max(100, 1000 / data.rate)) : 0;
  part("play").setAttribute("aria-pressed", String(on));
  part("play").textContent = on ? "Pause" : "Play";
  part("said").setAttribute("aria-live", on ? "off" : "polite");
}

function step() {
  part("time").value = (Number(part("time").value) + 1) % images.length;
  draw();
}

function start() {
  const { naturalWidth, naturalHeight } = images[0];
  const scale = Math.max(1, Math.ceil(LEAST / naturalWidth));
  Object.assign(part("picture"), { width: naturalWidth * scale, height: naturalHeight * scale });
  part("time").max = images.length - 1;
  part("layer").replaceChildren(...layers.map((layer, number) => new Option(layer.title, number)));
  part("layer").value = layers.length - 1;
  offerHeads();
  part("layer").addEventListener("change", () => {
    offerHeads();
    chooseAttention();
  });
  part("head").addEventListener("change", chooseAttention);
  part("play").addEventListener("click", play);
  for (const id of ["time", "opacity"]) part(id).addEventListener("input", draw);
  for (const choice of document.querySelectorAll("input[name=over]")) choice.addEventListener("change", draw);
  part("look").hidden = false;
  draw();
}

Promise.all(images.map((image) => image.decode())).then(start);
