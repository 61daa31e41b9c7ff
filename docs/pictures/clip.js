// Draws the recorded run of clip-data: weights are integers of 16 bits, of `steps` for 1; nothing is computed anew.
const data = JSON.parse(document.getElementById("clip-data").textContent);
const [times, rows, columns] = data.grid;
const places = rows * columns;
const count = times * places;
const ENLARGED = 3; // screen pixels of a frame's pixel
const STRONGEST = 6; // numbers of the list
const [ORANGE, BLUE] = ["217 98 43", "43 123 186"];
const part = (name) => document.getElementById(`clip-${name}`);
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const models = data.models.map((model) => ({
  ...model,
  layers: model.layers.map((layer) => ({ ...layer, weights: new Uint16Array(bytesOf(layer.codes).buffer) })),
  tokens: model.tokens.map((stage) => ({ ...stage, values: bytesOf(stage.bytes) })),
}));
const images = data.frames.map((src) => Object.assign(new Image(), { src }));
const whole = (number) => number.toLocaleString("en-US");
const millions = (number) =>
  number < 1e6 ? whole(number) : number < 1e9 ? `${(number / 1e6).toFixed(1)} M` : `${(number / 1e9).toFixed(1)} G`;
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Returns the current choices. token: its number, time first. */
function chosen() {
  const model = models[Number(document.querySelector("input[name=clip-model]:checked").value)];
  const [time, row, column] = ["time", "row", "column"].map((name) => Number(part(name).value));
  return {
    model,
    layer: model.layers[Number(part("layer").value)],
    head: Number(part("head").value),
    mode: document.querySelector("input[name=clip-mode]:checked").value,
    token: time * places + row * columns + column,
  };
}

/** The names of the sequence of a token and of its place in there, for each kind of attention. */
const SEQUENCES = {
  joint: { length: count, of: (token) => [0, token] },
  space: { length: places, of: (token) => [Math.floor(token / places), token % places] },
  time: { length: times, of: (token) => [token % places, Math.floor(token / places)] },
  frames: { length: times, of: (token) => [0, Math.floor(token / places)] },
};

/** Returns the weight with which a token looks at another, or undefined where it cannot. */
function weight({ layer, head }, query, key) {
  const { length, of } = SEQUENCES[layer.kind];
  const [[sequence, q], [other, k]] = [of(query), of(key)];
  if (sequence !== other) return undefined;
  const sequences = layer.weights.length / layer.heads.length / length ** 2;
  return layer.weights[((head * sequences + sequence) * length + q) * length + k] / data.steps;
}

/** Returns what is shown of every token: its weight in the chosen row, or column. */
function shown(now) {
  return Array.from({ length: count }, (_, other) =>
    now.mode === "row" ? weight(now, now.token, other) : weight(now, other, now.token),
  );
}

function nameOf(token, kind) {
  const time = `time ${Math.floor(token / places) + 1}`;
  if (kind === "frames") return time;
  return `${time}, row ${Math.floor((token % places) / columns) + 1}, column ${(token % columns) + 1}`;
}

function drawFrames(now, weights, largest) {
  const framesShown = part("frames").querySelectorAll("canvas");
  framesShown.forEach((canvas, time) => {
    const image = images[time];
    const [width, height] = [image.naturalWidth * ENLARGED, image.naturalHeight * ENLARGED];
    const context = Object.assign(canvas, { width, height }).getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, width, height);
    for (const [blending, grey] of [["saturation", 128], ["multiply", data.light]]) {
      Object.assign(context, { globalCompositeOperation: blending, fillStyle: `rgb(${grey} ${grey} ${grey})` });
      context.fillRect(0, 0, width, height);
    }
    context.globalCompositeOperation = "source-over";
    const [across, down] = [width / columns, height / rows];
    for (let place = 0; place < places; place++) {
      const value = weights[time * places + place];
      const [x, y] = [(place % columns) * across, Math.floor(place / columns) * down];
      const color = `rgb(${data.color.join(" ")} / ${value / largest})`;
      context.fillStyle = value === undefined ? "rgb(0 0 0 / 0.65)" : color;
      context.fillRect(x, y, across, down);
    }
    if (Math.floor(now.token / places) !== time) return;
    const place = now.token % places;
    for (const [style, line] of [["#000", 8], ["#fff", 4]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: line });
      context.strokeRect((place % columns) * across, Math.floor(place / columns) * down, across, down);
    }
  });
}

/** Draws all weights of the head, queries down and keys across, with the square root as brightness. */
function drawMatrix(now) {
  const frames = now.layer.kind === "frames";
  const [length, stride] = frames ? [times, places] : [count, 1];
  const canvas = Object.assign(part("matrix"), { width: length, height: length });
  const context = canvas.getContext("2d");
  const pixels = new ImageData(length, length);
  let [largest, can] = [0, 0];
  const all = Array.from({ length: length ** 2 }, (_, i) => {
    const value = weight(now, Math.floor(i / length) * stride, (i % length) * stride);
    largest = Math.max(largest, value ?? 0);
    can += value !== undefined;
    return value;
  });
  const at = Math.floor(now.token / stride);
  all.forEach((value, i) => {
    const strength = Math.sqrt((value ?? 0) / largest);
    const marked = (now.mode === "row" ? Math.floor(i / length) : i % length) === at;
    const dark = value === undefined ? (marked ? [70, 70, 90] : [40, 40, 44]) : marked ? [60, 90, 140] : [0, 0, 0];
    pixels.data.set([...dark.map((low, c) => low + strength * (data.color[c] - low)), 255], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  part("matrix-note").textContent =
    `${length} queries down, ${length} keys across; blue is the chosen ${now.mode}. ` +
    (can < length ** 2 ? `Grey is never computed: ${whole(can)} of ${whole(length ** 2)} weights are.` : "") +
    " The square root of a weight is its brightness.";
  canvas.setAttribute("aria-label", `Attention weights as a picture. ${part("matrix-note").textContent}`);
}

/** Lists what is shown: the strongest, the sum, and every number. */
function drawNumbers(now, weights) {
  const { kind } = now.layer;
  const step = kind === "frames" ? places : 1;
  const seen = weights
    .map((value, token) => [value, token])
    .filter(([value, token]) => value !== undefined && token % step === 0);
  const order = [...seen].sort(([one], [other]) => other - one).slice(0, STRONGEST);
  part("row-heading").textContent = now.mode === "row" ? "One row of it" : "One column of it";
  part("strongest").replaceChildren(
    ...order.map(([value, token]) => {
      return element("li", {}, element("code", {}, value.toFixed(4)), ` ${nameOf(token, kind)}`);
    }),
  );
  const sum = seen.reduce((total, [value]) => total + value, 0).toFixed(3);
  part("sum").textContent =
    now.mode === "row"
      ? `The ${seen.length} weights of a row sum to 1; these numbers, rounded, to ${sum}.`
      : `The ${seen.length} weights of a column sum to ${sum}: a column may have any sum.`;
  const tables = kind === "joint" || kind === "space" ? eachPlace(now, weights) : [eachTime(seen)];
  part("numbers").replaceChildren(...tables);
  return order[0];
}

/** A table for each time that has weights: its rows and columns of places. */
function eachPlace(now, weights) {
  const cell = (token) => element("td", { className: token === now.token ? "chosen" : "" }, weights[token].toFixed(4));
  return Array.from({ length: times }, (_, time) => time)
    .filter((time) => weights[time * places] !== undefined)
    .map((time) => {
      const table = element("table", {}, element("caption", {}, `Time ${time + 1}`));
      for (let row = 0; row < rows; row++) {
        const cells = Array.from({ length: columns }, (_, column) => cell(time * places + row * columns + column));
        table.append(element("tr", {}, ...cells));
      }
      return table;
    });
}

/** One table of weights over time. */
function eachTime(seen) {
  const heading = seen.map((_, time) => element("th", { scope: "col" }, `Time ${time + 1}`));
  const cells = seen.map(([value]) => element("td", {}, value.toFixed(4)));
  return element("table", {}, element("tr", {}, ...heading), element("tr", {}, ...cells));
}

function drawTokens({ model, token }) {
  const strips = model.tokens.map((stage) => {
    const index = { tokens: token, times: Math.floor(token / places), clip: 0 }[stage.rows];
    const channels = stage.shape.at(-1);
    const canvas = element("canvas", { width: channels, height: 1 });
    const context = canvas.getContext("2d");
    stage.values.subarray(index * channels, (index + 1) * channels).forEach((byte, channel) => {
      const value = (byte - 128) / 127;
      context.fillStyle = `rgb(${value < 0 ? BLUE : ORANGE} / ${Math.abs(value)})`;
      context.fillRect(channel, 0, 1, 1);
    });
    canvas.setAttribute("aria-hidden", "true");
    const whose = { tokens: "", times: ", of its frame", clip: ", of the clip" }[stage.rows];
    return element(
      "p",
      {},
      element("span", {}, `${stage.title}${whose}`),
      canvas,
      element("span", { className: "note" }, `[${stage.shape.join(" ")}], largest ${stage.largest.toPrecision(2)}`),
    );
  });
  part("tokens").replaceChildren(...strips);
  const labels = model.labels.slice(0, 3).map(([label, likely]) => `${label} ${(100 * likely).toFixed(1)} %`);
  part("labels").textContent = `From the mean the model reads: ${labels.join(", ")}.`;
}

function drawCosts({ model, layer }) {
  const keys = SEQUENCES[layer.kind].length;
  const each = layer.products / layer.count;
  part("cost").textContent =
    `${layer.title}: [${layer.shape.join(" ")}] is ${whole(layer.count)} weights, ${size(layer.size)} in float32. ` +
    `QKᵀ and the product with V take ${millions(layer.products)} multiply-adds, ${each} for each weight. ` +
    `One row takes ${whole(4 * keys)} bytes and ${whole(each * keys)} multiply-adds.`;
  const heading = ["", "Weights", "Bytes", "Multiply-adds with them", "of the whole model", "of ViViT-B"];
  const lines = models.map((one) => {
    const products = [one.products, one.multiply_adds, one.published].map(millions);
    const cells = [whole(one.weights), size(one.bytes), ...products].map((text) => element("td", {}, text));
    return element(
      "tr",
      { className: one === model ? "chosen" : "" },
      element("th", { scope: "row" }, one.title.split(":")[0]),
      ...cells,
    );
  });
  part("costs").replaceChildren(
    element("thead", {}, element("tr", {}, ...heading.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...lines),
  );
}

function draw() {
  const now = chosen();
  const weights = shown(now);
  const largest = Math.max(...weights.map((value) => value ?? 0)) || 1;
  for (const [name, number] of [["time", times], ["row", rows], ["column", columns]]) {
    part(`${name}-value`).textContent = `${Number(part(name).value) + 1} of ${number}`;
  }
  drawFrames(now, weights, largest);
  drawMatrix(now);
  const [value, token] = drawNumbers(now, weights);
  drawTokens(now);
  drawCosts(now);
  const { model, layer, head } = now;
  const what = `${model.title}. ${layer.title}, ${layer.heads[head].toLowerCase()}.`;
  part("said").textContent = `${what} ${found(now, weights, value, token)}`;
}

/** Returns a sentence about the largest of the weights that are shown. */
function found({ layer, mode, token }, weights, value, other) {
  const place = nameOf(token, layer.kind);
  const subject = layer.kind === "frames" ? `The frame of ${place}` : `The token at ${place},`;
  const verb = mode === "row" ? "looks most at" : "is looked at most by";
  const object = nameOf(other, layer.kind) === place ? "itself" : nameOf(other, layer.kind);
  const black = weights.includes(undefined) ? (mode === "row" ? " Black it cannot see." : " Black cannot see it.") : "";
  return `${subject} ${verb} ${object}: ${value.toFixed(4)}. Full orange is this number.${black}`;
}

function offerHeads() {
  const { layer } = chosen();
  const before = Math.min(Number(part("head").value), layer.heads.length - 1);
  part("head").replaceChildren(...layer.heads.map((name, number) => new Option(name, number)));
  part("head").value = before;
  draw();
}

function offerLayers() {
  const { model } = chosen();
  const before = Math.min(Number(part("layer").value), model.layers.length - 1);
  part("layer").replaceChildren(...model.layers.map((layer, number) => new Option(layer.title, number)));
  part("layer").value = before;
  offerHeads();
}

function choose(token) {
  part("time").value = Math.floor(token / places);
  part("row").value = Math.floor((token % places) / columns);
  part("column").value = token % columns;
  draw();
}

function start() {
  for (const [number, model] of models.entries()) {
    const radio = element("input", { type: "radio", name: "clip-model", value: number, checked: number === 0 });
    radio.addEventListener("change", offerLayers);
    part("models").append(element("label", {}, radio, ` ${model.title}`));
  }
  for (const [name, number] of [["time", times], ["row", rows], ["column", columns]]) {
    Object.assign(part(name), { max: number - 1, value: Math.floor((number - 1) / 2) }).addEventListener("input", draw);
  }
  images.forEach((_, time) => {
    const canvas = element("canvas");
    canvas.setAttribute("aria-hidden", "true");
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const at = (place, length, number) => Math.min(number - 1, Math.max(0, Math.floor((place / length) * number)));
      const row = at(event.clientY - box.top, box.height, rows);
      choose(time * places + row * columns + at(event.clientX - box.left, box.width, columns));
    });
    const frames = `time ${time + 1}: frames ${time * data.tubelet[0] + 1} to ${(time + 1) * data.tubelet[0]}`;
    part("frames").append(element("figure", {}, canvas, element("figcaption", {}, frames)));
  });
  part("layer").addEventListener("change", offerHeads);
  part("head").addEventListener("change", draw);
  for (const radio of document.querySelectorAll("input[name=clip-mode]")) radio.addEventListener("change", draw);
  part("layer").append(new Option("", 0));
  part("head").append(new Option("", 0));
  document.getElementById("clip").hidden = false;
  offerLayers();
}

Promise.all(images.map((image) => image.decode())).then(start);
