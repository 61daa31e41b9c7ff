"use strict";

// The data that Python wrote: frames as images, maps as bytes; 255 is the maximum of a map over the clip.
const data = JSON.parse(document.getElementById("data").textContent);
const [times, rows, columns] = data.grid;
const places = rows * columns;
const layers = data.layers.map((layer) => ({ ...layer, space: decoded(layer.space), time: decoded(layer.time) }));
const maps = { rollout: decoded(data.rollout), relevance: decoded(data.relevance) };
const images = data.frames.map((url) => Object.assign(new Image(), { src: url }));
const part = (id) => document.getElementById(id);

const PICTURE = 672; // minimum width of the picture in pixels: small frames are enlarged without smoothing
const SMALL = 96; // pixels of a frame's width; below, enlarged pixels stay square
const MATRIX = 384; // approximate width of the matrix over time in pixels
const SLOWEST = 100; // minimum milliseconds between frames
const NAMES = { none: "nothing", relevance: "relevance", rollout: "attention rollout", attention: "attention of a layer" };
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
let playing = 0;
let switched = ""; // text about other controls that a choice changed

function decoded(map) {
  return map && { ...map, bytes: Uint8Array.from(atob(map.bytes), (letter) => letter.charCodeAt(0)) };
}

/** Returns the current choices. */
function chosen() {
  const frame = Number(part("time").value);
  return {
    frame,
    time: data.time_of_frame[frame],
    over: document.querySelector("input[name=over]:checked").value,
    opacity: Number(part("opacity").value) / 100,
    target: Number(part("target").value),
    layer: layers[Number(part("layer").value)],
    head: Number(part("head").value),
  };
}

/** Returns the chosen map at one time, or null if there is none. */
function mapAt({ over, layer, target, head, time }) {
  const map = over === "attention" ? layer.space : maps[over];
  return map ? rowOf(map, { relevance: target, attention: head }[over] ?? 0, time, times) : null;
}

/** Returns one of `count` rows of a map: bytes, maximum, its index (−1 if even); and the state of the map. */
function rowOf(map, number, row, count) {
  const place = number * count + row;
  const length = map.bytes.length / map.row_most.length;
  return {
    bytes: map.bytes.subarray(place * length, (place + 1) * length),
    rowMost: map.row_most[place],
    strongest: map.strongest[place],
    state: map.state[number],
    least: map.least[number],
    most: map.most[number],
  };
}

/** Returns a canvas with one pixel per byte: one color with the byte as opacity. opacity: of the maximum. */
function strengths(bytes, across, opacity) {
  const canvas = sized(document.createElement("canvas"), across, bytes.length / across);
  const pixels = new ImageData(canvas.width, canvas.height);
  bytes.forEach((byte, cell) => pixels.data.set([...data.color, Math.round(opacity * byte)], 4 * cell));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** Draws the same over black. */
function onBlack(context, bytes, across, top, height) {
  context.fillStyle = "#000";
  context.fillRect(0, top, context.canvas.width, height);
  context.imageSmoothingEnabled = false;
  context.drawImage(strengths(bytes, across, 1), 0, top, context.canvas.width, height);
}

function sized(canvas, width, height) {
  return Object.assign(canvas, { width, height });
}

function grey(value) {
  return `rgb(${value} ${value} ${value})`;
}

function drawPicture(now, map) {
  const canvas = part("picture");
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.imageSmoothingEnabled = images[now.frame].naturalWidth > SMALL;
  context.drawImage(images[now.frame], 0, 0, width, height);
  if (map) {
    for (const [blending, value] of [["saturation", 128], ["multiply", data.light]]) {
      Object.assign(context, { globalCompositeOperation: blending, fillStyle: grey(value) });
      context.fillRect(0, 0, width, height);
    }
    Object.assign(context, { globalCompositeOperation: "source-over", imageSmoothingEnabled: false });
    context.drawImage(strengths(map.bytes, columns, now.opacity), 0, 0, width, height);
  }
  part("mark").textContent = data.marks[now.frame];
  part("mark").hidden = !data.marks[now.frame];
}

/** Draws the legend: the colors over the lightest grey (above) and over black (below). */
function drawLegend(now, map) {
  part("legend").hidden = now.over === "none";
  const context = part("scale").getContext("2d");
  for (const [row, value] of [data.light, 0].entries()) {
    context.fillStyle = grey(value);
    context.fillRect(0, row, 256, 1);
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(strengths(Uint8Array.from({ length: 256 }, (_, byte) => byte), 256, now.opacity), 0, 0, 256, 2);
  const unit = data.units[now.over === "attention" ? now.layer.unit : now.over];
  part("unit").textContent = map ? stateOf(map) || unit : "no map over space";
  part("peak").textContent = map ? `${map.most}, the most in the clip` : "";
}

/** Returns the reason why a map is not drawn, or "". */
function stateOf(map) {
  return {
    nothing: "nothing found: no more than rounding",
    even: `nearly even in the whole clip: from ${map.least} to ${map.most} everywhere`,
  }[map.state];
}

function drawHeads({ layer, head, time }) {
  const { space, heads } = layer;
  part("heads").hidden = !space;
  part("heads-note").textContent = space
    ? `${layer.title}, at the time shown. Full orange is the most of that head in the clip. ` +
      "Choose one to lay it over the frame."
    : "This encoder’s tokens are whole frames: there is no map over space, only over time.";
  for (const [number, button] of [...part("heads").children].entries()) {
    const map = mapAt({ over: "attention", layer, head: number, time });
    button.setAttribute("aria-pressed", String(number === head));
    onBlack(button.querySelector("canvas").getContext("2d"), map.bytes, columns, 0, rows);
    button.querySelector(".most").textContent =
      { nothing: "nothing", even: "nearly even" }[map.state] ??
      (map.rowMost ? `${map.rowMost} of ${map.most}` : `nothing of ${map.most}`);
    button.title = `${heads[number]}: the most at this time, and in the clip`;
  }
}

function drawOverTime({ layer, head, time }) {
  part("matrix").hidden = !layer.time;
  part("over-time-note").textContent = "This attention stays within each frame: there is none over time.";
  if (!layer.time) return;
  const first = layer.class_row ? 1 : 0; // index of the first time row; the class token's row is half a cell above
  const all = rowOf({ ...layer.time, row_most: layer.time.most }, head, 0, 1); // every row as one
  const cell = Math.min(48, Math.max(6, Math.floor(MATRIX / times)));
  const top = (first * 3 * cell) / 2;
  const canvas = sized(part("over-time"), times * cell, top + times * cell);
  const context = canvas.getContext("2d");
  if (first) onBlack(context, all.bytes.subarray(0, times), times, 0, cell);
  onBlack(context, all.bytes.subarray(first * times), times, top, times * cell);
  for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.strokeRect(2, top + time * cell + 2, canvas.width - 4, cell - 4);
    context.strokeRect(time * cell + 2, 2, cell - 4, canvas.height - 4);
  }
  const row = rowOf(layer.time, head, first + time, first + times);
  const looks = row.strongest < 0 ? "at all times about alike" : `most at time ${row.strongest + 1}, with ${row.rowMost} of its attention`;
  part("over-time-note").textContent =
    `${layer.title}, ${layer.heads[head].toLowerCase()}. ${first ? "The row on top is the class token’s. " : ""}` +
    `Framed is the time shown, ${time + 1} of ${times}: it looks ${looks}. ` +
    (stateOf(all) ? `It is ${stateOf(all)}, so none is colored.` : `Full orange is ${all.most}, the most in the clip.`);
  canvas.setAttribute("aria-label", part("over-time-note").textContent);
}

/** Returns a sentence about the contents of the picture. */
function sentence(now, map) {
  const frame = `Frame ${data.frame_names[now.frame]}. ${data.marks[now.frame]}`.trim();
  if (now.over === "none") return `${switched}${frame}`;
  const what = {
    attention: `${now.layer.title}, ${now.layer.heads[now.head].toLowerCase()}`,
    rollout: "Attention rollout",
    relevance: `Relevance of the logit of ${data.targets[now.target]}`,
  }[now.over];
  return `${switched}${frame} ${what}: ${found(map)}.`;
}

function found(map) {
  if (!map) return "no map over space, as its tokens are whole frames";
  if (stateOf(map)) return stateOf(map);
  if (!map.rowMost) return "nothing in this frame";
  if (map.strongest < 0) return `about the same everywhere in this frame, ${map.rowMost}`;
  const [row, column] = [Math.floor(map.strongest / columns), map.strongest % columns];
  const square = `row ${row + 1} of ${rows}, column ${column + 1} of ${columns}`;
  return `strongest at the ${side(row, column)}, ${square}, with ${map.rowMost}`;
}

function side(row, column) {
  const third = (place, count) => Math.floor((3 * (place + 0.5)) / count);
  const words = [["top", "", "bottom"][third(row, rows)], ["left", "", "right"][third(column, columns)]];
  return words.filter(Boolean).join(" ") || "centre";
}

function draw() {
  const now = chosen();
  const map = mapAt(now);
  drawPicture(now, map);
  drawLegend(now, map);
  drawHeads(now);
  drawOverTime(now);
  part("said").textContent = sentence(now, map);
  part("picture").setAttribute("aria-label", sentence(now, map));
  part("time-value").textContent = data.frame_names[now.frame];
  part("time").setAttribute("aria-valuetext", `${data.frame_names[now.frame]} ${data.marks[now.frame]}`.trim());
  part("opacity-value").textContent = `${part("opacity").value} %`;
  part("opacity").setAttribute("aria-valuetext", part("opacity-value").textContent);
}

/** Draws after a choice that changed no other control. */
function redraw() {
  switched = "";
  draw();
}

/** Draws the chosen map over the frame, and reports a change of map. */
function show(over) {
  const before = chosen().over;
  document.querySelector(`input[value=${over}]`).checked = true;
  switched = before === over ? "" : `Now ${NAMES[over]}, no longer ${NAMES[before]}. `;
  draw();
}

/** Fills the choices and tiles of the layer's heads; the first is the mean of all. */
function offerHeads() {
  const { heads, space } = layers[Number(part("layer").value)];
  part("head").replaceChildren(...heads.map((name, head) => new Option(name, head)));
  part("heads").replaceChildren(...(space ? heads.map(tile) : []));
}

function tile(name, head) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const canvas = sized(document.createElement("canvas"), columns, rows);
  canvas.setAttribute("aria-hidden", "true");
  const texts = [["name", name], ["most", ""]].map(([className, textContent]) =>
    Object.assign(document.createElement("span"), { className, textContent }),
  );
  button.append(canvas, ...texts);
  button.addEventListener("click", () => {
    part("head").value = head;
    show("attention");
  });
  return button;
}

/** Plays or pauses; with reduced motion, shows the next frame. */
function play() {
  if (stillness.matches && !playing) return step();
  clearInterval(playing);
  playing = playing ? 0 : setInterval(step, Math.max(SLOWEST, 1000 * data.seconds));
  part("said").setAttribute("aria-live", playing ? "off" : "polite"); // a screen reader cannot read ten sentences per second
  namePlay();
}

function step() {
  part("time").value = (Number(part("time").value) + 1) % images.length;
  redraw();
}

function namePlay() {
  if (playing && stillness.matches) return play();
  part("play").textContent = playing ? "Pause" : stillness.matches ? "Next frame" : "Play";
}

function start() {
  const { naturalWidth, naturalHeight } = images[0];
  const scale = Math.max(1, Math.ceil(PICTURE / naturalWidth));
  sized(part("picture"), naturalWidth * scale, naturalHeight * scale);
  part("time").max = images.length - 1;
  part("layer").replaceChildren(...layers.map((layer, number) => new Option(layer.title, number)));
  part("layer").value = layers.findLastIndex((layer) => layer.space); // the last layer with a map over space
  offerHeads();
  part("layer").addEventListener("change", () => {
    offerHeads();
    show("attention");
  });
  part("head").addEventListener("change", () => show("attention"));
  part("target").addEventListener("change", () => show("relevance"));
  part("play").addEventListener("click", play);
  stillness.addEventListener("change", namePlay);
  for (const id of ["time", "opacity"]) part(id).addEventListener("input", redraw);
  for (const choice of document.querySelectorAll("input[name=over]")) choice.addEventListener("change", redraw);
  namePlay();
  part("look").hidden = false;
  draw();
}

Promise.all(images.map((image) => image.decode())).then(start);
