"use strict";

// What Python put on the page: frames as pictures, maps as bytes, 255 being the peak of one head over the whole clip.
const data = JSON.parse(document.getElementById("data").textContent);
const [times, rows, columns] = data.grid;
const places = rows * columns;
const layers = data.layers.map((layer) => ({ ...layer, space: decoded(layer.space), time: decoded(layer.time) }));
const maps = { rollout: decoded(data.rollout), relevance: decoded(data.relevance) };
const images = data.frames.map((url) => Object.assign(new Image(), { src: url }));
const part = (id) => document.getElementById(id);

// Inferno, of even steps to the eye, at every seventeenth byte
const INFERNO =
  "000004 0c0826 240c4f 420a68 5d126e 781c6d 932667 ae305c c73e4c dd513a ed6925 f8850f fca50a fac62d f2e661 fcffa4";
const stops = INFERNO.split(" ").map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));
const palette = Array.from({ length: 256 }, (_, byte) => mixed(byte / 17));
const PICTURE = 672; // pixels that the picture is at least wide: small frames are enlarged, pixel by pixel
const SMALL = 96; // pixels of a frame's width below which its pixels stay squares
const MATRIX = 384; // pixels that the matrix over time is about wide
const SLOWEST = 100; // milliseconds from frame to frame at least
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
let playing = 0;

function decoded(map) {
  return map && { peaks: map.peaks, bytes: Uint8Array.from(atob(map.bytes), (letter) => letter.charCodeAt(0)) };
}

function mixed(place) {
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((value, channel) => Math.round(value + (place - low) * (stops[low + 1][channel] - value)));
}

/** What is chosen at the moment. */
function chosen() {
  const frame = Number(part("time").value);
  return {
    frame,
    time: data.time_of_frame[frame],
    over: document.querySelector("input[name=over]:checked").value,
    opacity: Number(part("opacity").value) / 100,
    layer: layers[Number(part("layer").value)],
    head: Number(part("head").value),
  };
}

/** The bytes of a map at one time, and the value of 255; null where there is none. */
function mapAt({ over, layer, head, time }) {
  const map = over === "attention" ? layer.space : maps[over];
  if (!map) return null;
  const number = over === "attention" ? head : 0;
  const start = (number * times + time) * places;
  return { bytes: map.bytes.subarray(start, start + places), peak: map.peaks[number] };
}

/** A canvas of one pixel a byte. opacity: of the largest; lesser ones are clearer, down to its third power. */
function heat(bytes, across, opacity = 1) {
  const canvas = sized(document.createElement("canvas"), across, bytes.length / across);
  const pixels = new ImageData(canvas.width, canvas.height);
  bytes.forEach((byte, cell) => pixels.data.set([...palette[byte], 255 * opacity ** (3 - byte / 127.5)], 4 * cell));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function sized(canvas, width, height) {
  return Object.assign(canvas, { width, height });
}

function drawPicture(now) {
  const canvas = part("picture");
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = images[now.frame].naturalWidth > SMALL;
  context.drawImage(images[now.frame], 0, 0, canvas.width, canvas.height);
  const map = mapAt(now);
  context.imageSmoothingEnabled = false;
  if (map) context.drawImage(heat(map.bytes, columns, now.opacity), 0, 0, canvas.width, canvas.height);
  part("peak").textContent = map ? short(map.peak) : "no map";
}

function drawHeads({ layer, head, time }) {
  const { space, heads } = layer;
  part("heads").hidden = !space;
  part("heads-note").textContent = space
    ? "At the time shown, each on a scale of its own. Choose one to lay it over the frame."
    : "This encoder's tokens are whole frames: there is no map over space, only over time.";
  for (const [number, button] of [...part("heads").children].entries()) {
    const map = mapAt({ over: "attention", layer, head: number, time });
    button.setAttribute("aria-pressed", String(number === head));
    button.title = `${heads[number]}: brightest is ${short(map.peak)}`;
    button.querySelector("canvas").getContext("2d").drawImage(heat(map.bytes, columns), 0, 0);
  }
}

function drawOverTime({ layer, head, time }) {
  part("matrix").hidden = !layer.time;
  part("over-time-note").textContent = "This attention stays within each frame: there is none over time.";
  if (!layer.time) return;
  const first = layer.class_row ? 1 : 0; // of the rows; the class token's stands above, by half a cell
  const size = times * (times + first);
  const bytes = layer.time.bytes.subarray(head * size, (head + 1) * size);
  const cell = Math.min(48, Math.max(6, Math.floor(MATRIX / times)));
  const top = (first * 3 * cell) / 2;
  const canvas = sized(part("over-time"), times * cell, top + times * cell);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  if (first) context.drawImage(heat(bytes.subarray(0, times), times), 0, 0, canvas.width, cell);
  context.drawImage(heat(bytes.subarray(first * times), times), 0, top, canvas.width, times * cell);
  for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.strokeRect(2, top + time * cell + 2, canvas.width - 4, cell - 4);
    context.strokeRect(time * cell + 2, 2, cell - 4, canvas.height - 4);
  }
  const row = bytes.subarray((first + time) * times, (first + time + 1) * times);
  const most = row.indexOf(Math.max(...row));
  const value = short((row[most] / 255) * layer.time.peaks[head]);
  part("over-time-note").textContent =
    `${first ? "The row on top is the class token's. " : ""}Framed is the time shown, ${time + 1} of ${times}: ` +
    `it looks most at time ${most + 1}, ${value}. Brightest is ${short(layer.time.peaks[head])}.`;
  canvas.setAttribute("aria-label", `${layer.title}, ${layer.heads[head]}. ${part("over-time-note").textContent}`);
}

/** What the picture shows, in a sentence. */
function sentence(now) {
  const frame = `Frame ${now.frame + 1} of ${images.length}, ${stamp(now.frame)}.`;
  if (now.over === "none") return frame;
  const what = {
    attention: `${now.layer.title}, ${now.layer.heads[now.head].toLowerCase()}`,
    rollout: "Attention rollout",
    relevance: `Relevance of “${data.target}”`,
  }[now.over];
  const map = mapAt(now);
  if (!map) return `${frame} ${what}: no map over space, as its tokens are whole frames.`;
  const best = map.bytes.indexOf(Math.max(...map.bytes));
  if (!map.bytes[best]) return `${frame} ${what}: nothing here.`;
  const [row, column] = [Math.floor(best / columns), best % columns];
  const value = short((map.bytes[best] / 255) * map.peak);
  const square = `row ${row + 1} of ${rows}, column ${column + 1} of ${columns}`;
  return `${frame} ${what}: strongest at the ${side(row, column)}, ${square}, with ${value}.`;
}

function side(row, column) {
  const third = (place, count) => Math.floor((3 * (place + 0.5)) / count);
  const words = [["top", "", "bottom"][third(row, rows)], ["left", "", "right"][third(column, columns)]];
  return words.filter(Boolean).join(" ") || "centre";
}

function stamp(frame) {
  return data.unit === "s" ? `${data.stamps[frame].toFixed(2)} s` : `${data.unit} ${data.stamps[frame]}`;
}

function short(value) {
  return String(Number(value.toPrecision(2)));
}

function draw() {
  const now = chosen();
  drawPicture(now);
  drawHeads(now);
  drawOverTime(now);
  part("said").textContent = sentence(now);
  part("picture").setAttribute("aria-label", sentence(now));
  part("time-value").textContent = `${now.frame + 1} of ${images.length}, ${stamp(now.frame)}`;
  part("time").setAttribute("aria-valuetext", part("time-value").textContent);
  part("opacity-value").textContent = `${part("opacity").value} %`;
  part("opacity").setAttribute("aria-valuetext", part("opacity-value").textContent);
}

/** The chosen layer's heads, as choices and as tiles; the first is the mean of all. */
function offerHeads() {
  const { heads, space } = layers[Number(part("layer").value)];
  part("head").replaceChildren(...heads.map((name, head) => new Option(name, head)));
  part("heads").replaceChildren(...(space ? heads.map(tile) : []));
}

function tile(name, head) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const canvas = sized(document.createElement("canvas"), columns, rows);
  canvas.setAttribute("aria-hidden", "true");
  button.append(canvas, Object.assign(document.createElement("span"), { textContent: name }));
  button.addEventListener("click", () => {
    part("head").value = head;
    showAttention();
  });
  return button;
}

function showAttention() {
  document.querySelector("input[value=attention]").checked = true;
  draw();
}

/** Plays or pauses; for who wants no motion, a frame on. */
function play() {
  if (stillness.matches && !playing) return step();
  clearInterval(playing);
  playing = playing ? 0 : setInterval(step, Math.max(SLOWEST, 1000 * data.seconds));
  part("said").setAttribute("aria-live", playing ? "off" : "polite"); // nobody can follow ten sentences a second
  namePlay();
}

function step() {
  part("time").value = (Number(part("time").value) + 1) % images.length;
  draw();
}

function namePlay() {
  if (playing && stillness.matches) return play();
  part("play").textContent = playing ? "Pause" : stillness.matches ? "Next frame" : "Play";
}

function start() {
  const { naturalWidth, naturalHeight } = images[0];
  const scale = Math.max(1, Math.ceil(PICTURE / naturalWidth));
  sized(part("picture"), naturalWidth * scale, naturalHeight * scale);
  part("scale").getContext("2d").drawImage(heat(Uint8Array.from(palette.keys()), 256), 0, 0);
  part("time").max = images.length - 1;
  part("layer").replaceChildren(...layers.map((layer, number) => new Option(layer.title, number)));
  part("layer").value = layers.findLastIndex((layer) => layer.space); // the last one that has something to lay over
  offerHeads();
  part("layer").addEventListener("change", () => {
    offerHeads();
    showAttention();
  });
  part("head").addEventListener("change", showAttention);
  part("play").addEventListener("click", play);
  stillness.addEventListener("change", namePlay);
  for (const id of ["time", "opacity"]) part(id).addEventListener("input", draw);
  for (const choice of document.querySelectorAll("input[name=over]")) choice.addEventListener("change", draw);
  namePlay();
  part("look").hidden = false;
  draw();
}

Promise.all(images.map((image) => image.decode())).then(start);
