// Draws the traced kernels of kernel-data: where each block lies in its array at a step of the grid.
const data = JSON.parse(document.getElementById("kernel-data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const PERIOD = 600; // milliseconds of a step while playing
const part = (name) => document.getElementById(`kernel-${name}`);
const whole = (number) => number.toLocaleString("en-US");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e5 ? 3 : 2)} MB`;
const shape = (sizes) => `[${sizes.join(" ")}]`;
const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
let playing = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The index of a step along each axis of the grid; the last axis runs fastest. */
function programIds(grid, step) {
  const ids = [];
  for (const size of [...grid].reverse()) {
    ids.unshift(step % size);
    step = Math.floor(step / size);
  }
  return ids;
}

const same = (one, other) => one.every((index, axis) => index === other[axis]);

/** Whether a block is fetched for a step: its index differs from the one of the step before. */
function fetched({ indices }, step) {
  return step === 0 || !same(indices[step], indices[step - 1]);
}

/** Whether a block is written to HBM after a step: its index differs from the one of the next step. */
function leaves({ indices }, step) {
  return step === indices.length - 1 || !same(indices[step], indices[step + 1]);
}

/** The bytes that an operand has moved up to and with a step, and what happens to its block in this one. */
function traffic(operand, step) {
  if (operand.hbm) return { moved: 0, state: "hbm", text: "stays in HBM: the kernel copies what it needs" };
  const moves = operand.written ? leaves : fetched;
  let count = 0;
  for (let at = 0; at <= step; at++) count += moves(operand, at);
  const now = moves(operand, step);
  const [state, text] = operand.written
    ? ["written", now ? "written to HBM after this step" : "stays in VMEM for the next step"]
    : now ? ["fetched", "fetched from HBM for this step"] : ["held", "still there from the step before"];
  return { moved: count * operand.bytes, state, text };
}

/** The rectangles of a block in its array [1 … rows columns], all tokens down; and its rows beyond the end. */
function rectangles({ array, block }, index) {
  const [rows, columns] = array.slice(-2);
  const starts = index.map((at, axis) => at * block[axis]);
  const [top, left] = starts.slice(-2);
  const [height, width] = [Math.min(block.at(-2), rows - top), Math.min(block.at(-1), columns - left)];
  const [frame, frames] = array.length > 3 ? [starts.at(-3), block.at(-3)] : [0, 1];
  const found = Array.from({ length: frames }, (_, i) => ({ x: left, y: (frame + i) * rows + top, width, height }));
  const joined = height === rows ? [{ ...found[0], height: frames * rows }] : found;
  return { found: joined, beyond: block.at(-2) - height };
}

/** The array of an operand: its heads as columns, its frames as rows, and its block at a step. */
function map(operand, step, state) {
  const { array, indices, heads } = operand;
  const [rows, columns] = array.slice(-2);
  const frames = array.length > 3 ? array.at(-3) : 1;
  const height = rows * frames;
  const svg = drawn("svg", { viewBox: `0 0 ${columns} ${height}`, preserveAspectRatio: "none", role: "img" });
  const label = [`The array ${operand.name}, ${shape(array)}`];
  for (const { first, lanes, head } of heads) {
    if (head % 2 === 0) svg.append(drawn("rect", { x: first, y: 0, width: lanes, height, class: "even" }));
  }
  for (let frame = 1; frame < frames; frame++) {
    svg.append(drawn("line", { x1: 0, x2: columns, y1: frame * rows, y2: frame * rows, class: "frame" }));
  }
  if (state !== "hbm") {
    const before = new Map(indices.slice(0, step).map((index) => [index.join(), index]));
    before.delete(indices[step].join());
    for (const index of before.values()) {
      for (const one of rectangles(operand, index).found) svg.append(drawn("rect", { ...one, class: "before" }));
    }
    for (const one of rectangles(operand, indices[step]).found) svg.append(drawn("rect", { ...one, class: state }));
    label.push(`its block in VMEM has the index ${indices[step].join(", ")}`);
  }
  svg.setAttribute("aria-label", label.join("; "));
  return svg;
}

/** The names of query, key and value over their columns, and the channels of the array. */
function titles({ heads, array }) {
  const named = [...new Set(heads.map(({ operand }) => operand))];
  const name = (operand) => element("span", {}, operand || `${array.at(-1)} channels`);
  return element("div", { className: "columns" }, ...named.map(name));
}

function panel(operand, step) {
  const { state, text } = traffic(operand, step);
  const { name, array, block, bytes, copies } = operand;
  const lines = [
    element("strong", {}, element("code", {}, name)),
    element("span", { className: `state ${state}` }, text),
  ];
  const facts = [`array ${shape(array)}`];
  if (state !== "hbm") {
    const { beyond } = rectangles(operand, operand.indices[step]);
    const index = `index (${operand.indices[step].join(", ")})`;
    facts.push(`block ${shape(block)}`, index, `${megabytes(bytes)} × ${copies}`);
    if (beyond) facts.push(`${beyond} of its ${block.at(-2)} rows lie beyond the end`);
  }
  return element(
    "figure",
    {},
    element("p", { className: "title" }, ...lines),
    titles(operand),
    map(operand, step, state),
    element("figcaption", {}, facts.join(" · ")),
  );
}

function drawVmem(call, step) {
  const blocks = call.operands.reduce((sum, { bytes, copies }) => sum + bytes * copies, 0);
  const scratch = call.scratch.reduce((sum, { bytes }) => sum + bytes, 0);
  const moved = call.operands.reduce((sum, operand) => sum + traffic(operand, step).moved, 0);
  Object.assign(part("vmem"), { max: data.vmem, value: blocks + scratch });
  part("vmem-said").textContent =
    `Blocks take ${megabytes(blocks)}: each is there twice, since the next is fetched while this one is used. ` +
    (scratch ? `Scratch takes ${megabytes(scratch)}. ` : "") +
    `There are ${megabytes(data.vmem)}, which the scores need too. Up to this step, ${megabytes(moved)} have moved.`;
  const rows = call.scratch.map(({ name, shape: sizes, bytes }) => {
    const cells = [shape(sizes), megabytes(bytes)].map((text) => element("td", {}, text));
    return element("tr", {}, element("th", { scope: "row" }, element("code", {}, name)), ...cells);
  });
  const heading = ["Scratch", "Shape", "Bytes"].map((text) => element("th", { scope: "col" }, text));
  part("scratch").replaceChildren(...(rows.length ? [element("tr", {}, ...heading), ...rows] : []));
}

/** The registers that hold the heads of the first operand's block. */
function drawLanes(call, step) {
  const [operand] = call.operands;
  const width = operand.block.at(-1);
  const first = operand.indices[step].at(-1) * width;
  const inside = operand.heads.filter((head) => head.first >= first && head.first + head.lanes <= first + width);
  const own = inside.filter((head) => head.operand === inside[0].operand);
  const windows = new Map();
  for (const head of own) {
    const window = Math.floor(head.first / data.lanes);
    windows.set(window, [...(windows.get(window) ?? []), head]);
  }
  const rows = [...windows.values()].map((heads) =>
    element(
      "div",
      { className: "window" },
      ...heads.map(({ head, lanes, first: column }) => {
        const lane = column % data.lanes;
        const text = `head ${head + 1}: lanes ${lane}–${lane + lanes - 1}`;
        return element("span", { className: head % 2 ? "odd" : "even" }, text);
      }),
    ),
  );
  part("lanes").replaceChildren(...rows);
  part("lanes-said").textContent =
    `The ${own[0].operand || "heads"} of this step: ${own.length} heads in ${rows.length} ` +
    `${rows.length > 1 ? "windows" : "window"} of ${data.lanes} lanes. ` +
    (own.length > rows.length ? "While one head of a window is multiplied, the lanes of the other are zero." : "");
}

function draw() {
  const call = data.calls[Number(part("call").value)];
  const step = Number(part("step").value);
  const steps = product(call.grid);
  part("step-value").textContent = `${step + 1} of ${steps}`;
  part("step").setAttribute("aria-valuetext", `${step + 1} of ${steps}`);
  part("operands").replaceChildren(...call.operands.map((operand) => panel(operand, step)));
  const fresh = call.operands.filter((operand) => !operand.hbm && !operand.written && fetched(operand, step));
  part("said").textContent =
    `Grid (${call.grid.join(", ")}), step (${programIds(call.grid, step).join(", ")}). ` +
    (fresh.length ? `Fetched: ${fresh.map(({ name }) => name).join(", ")}.` : "Nothing is fetched.");
  part("first").disabled = part("previous").disabled = step === 0;
  part("next").disabled = step === steps - 1;
  drawVmem(call, step);
  drawLanes(call, step);
}

function go(step) {
  part("step").value = step;
  draw();
  if (playing && step >= Number(part("step").max)) play();
}

/** Plays from this step, or stops. */
function play() {
  clearInterval(playing);
  const step = Number(part("step").value);
  playing = playing ? 0 : setInterval(() => go(Number(part("step").value) + 1), PERIOD);
  if (playing && step >= Number(part("step").max)) go(0);
  part("said").setAttribute("aria-live", playing ? "off" : "polite");
  part("play").textContent = playing ? "Pause" : "Play";
}

function choose() {
  if (playing) play();
  part("step").max = product(data.calls[Number(part("call").value)].grid) - 1;
  go(0);
}

part("call").append(...data.calls.map(({ title }, number) => new Option(title, number)));
part("call").addEventListener("change", choose);
part("step").addEventListener("input", draw);
part("first").addEventListener("click", () => go(0));
part("previous").addEventListener("click", () => go(Number(part("step").value) - 1));
part("next").addEventListener("click", () => go(Number(part("step").value) + 1));
part("play").addEventListener("click", play);
document.getElementById("kernel").hidden = false;
choose();
