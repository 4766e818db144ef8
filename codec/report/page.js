"use strict";

// What the page can do beyond being read: copy commands, sort tables, compare pictures.

const byId = (id) => document.getElementById(id);
const parse = (id) => JSON.parse(byId(id).textContent);

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Copying goes through the selection: that works from a file on disk, and where it does not the text is selected at least.
function addCopyButton(pre) {
  const code = pre.querySelector("code");
  const button = element("button", "Copy", { type: "button", "aria-label": "Copy the command" });
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(code);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  pre.append(button);
}

function commandBox(text) {
  const pre = element("pre", "", { class: "command" });
  pre.append(element("code", text));
  addCopyButton(pre);
  return pre;
}

// The value of a cell is its data-value: numbers by size, missing ones last; the first column by its text.
function makeSortable(table) {
  const body = table.tBodies[0];
  const headings = table.tHead.rows[table.tHead.rows.length - 1].cells;
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  [...headings].forEach((heading, column) => {
    if (heading.tagName !== "TH") return;
    const button = element("button", heading.textContent, { type: "button" });
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

const SOURCE = "source";
const NVC = "nvc";
const DIFFERENCE_GAIN = 8;
const ZOOMS = [1, 2, 4];

// The frame viewer. `state` is all there is to know; every change of it goes through `show`, which makes the page agree.
function startViewer(results, data) {
  const runs = new Map(results.runs.map((run) => [run.id, run]));
  const labels = new Map(results.codecs.map((codec) => [codec.id, codec.label]));
  const clips = new Map(results.clips.map((clip) => [clip.name, clip]));
  const images = new Map();
  const state = {
    clip: "", codec: "", run: "", frame: 0, left: NVC, right: "", zoom: 1, split: 50, difference: false, source: false,
  };
  let drawn = 0;

  const nvcRuns = () => Object.keys(data.clips[state.clip].runs);
  const anchors = () => data.clips[state.clip].runs[state.run].map((id) => runs.get(id)); // the nearest in size first
  const frames = () => data.clips[state.clip].frames;
  const name = (run) => `${labels.get(run.codec)}, ${run.label}`;

  // A side is SOURCE, NVC, or the id of an anchor, of which the run nearest in size is shown.
  const runOf = (side) => (side === NVC ? runs.get(state.run) : anchors().find((run) => run.codec === side));
  const titleOf = (side) => (side === SOURCE ? "source" : name(runOf(side)));
  const keyOf = (side) => `${side === SOURCE ? `${state.clip}/source` : runOf(side).id}/${state.frame}`;

  function image(key) {
    if (!images.has(key)) {
      const made = new Image();
      made.src = data.pictures[key];
      images.set(key, made.decode().then(() => made));
    }
    return images.get(key);
  }

  function paint(canvas, picture) {
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context;
  }

  function subtract(context, from) {
    const { width, height } = context.canvas;
    const picture = context.getImageData(0, 0, width, height);
    const source = from.getImageData(0, 0, width, height).data;
    picture.data.forEach((value, i) => {
      if (i % 4 !== 3) picture.data[i] = Math.abs(value - source[i]) * DIFFERENCE_GAIN;
    });
    context.putImageData(picture, 0, 0);
  }

  async function draw() {
    const turn = ++drawn;
    const sides = [state.left, state.right, SOURCE];
    const pictures = await Promise.all(sides.map((side) => image(keyOf(side))));
    if (turn !== drawn) return; // the state has changed while pictures were decoded
    const canvases = ["v-canvas-left", "v-canvas-right", "v-canvas-source"].map(byId);
    const contexts = canvases.map((canvas, i) => paint(canvas, pictures[i]));
    sides.slice(0, 2).forEach((side, i) => {
      canvases[i].setAttribute("aria-label", titleOf(side));
      if (state.difference) subtract(contexts[i], contexts[2]);
    });
    canvases[2].hidden = !state.source;
    byId("viewer").dataset.drawn = sides.map(keyOf).join(" ") + (state.difference ? " difference" : "");
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
    select.value = chosen;
  }

  // Choices that the state no longer offers fall back to what is nearest to them.
  function settle() {
    const codecs = [...new Set(nvcRuns().map((id) => runs.get(id).codec))];
    if (!codecs.includes(state.codec)) state.codec = codecs[0];
    const own = nvcRuns().filter((id) => runs.get(id).codec === state.codec);
    if (!own.includes(state.run)) {
      const label = runs.get(state.run)?.label;
      state.run = own.find((id) => runs.get(id).label === label) ?? own[Math.floor(own.length / 2)];
    }
    if (!frames().includes(state.frame)) state.frame = frames()[0];
    const sides = [SOURCE, NVC, ...anchors().map((run) => run.codec)];
    if (!sides.includes(state.left)) state.left = NVC;
    if (!sides.includes(state.right)) state.right = sides[2] ?? SOURCE;
    return { codecs, own, sides };
  }

  const digits = (value, count) => (value === undefined || value === null ? "—" : value.toFixed(count));

  function figures(side) {
    if (side === SOURCE) return ["source", "", "", "", "", "", "", "", ""];
    const run = runOf(side);
    const of = (metric) => [digits(run.frames[metric]?.[state.frame], 2), digits(run.quality[metric]?.mean, 2)];
    const ratio = `${(run.bytes / runs.get(state.run).bytes).toFixed(2)}x`;
    const size = [run.bytes.toLocaleString("en"), ratio, digits(run.bpp, 4), digits(run.file_bpp, 4)];
    return [name(run), ...size, ...of("psnr_y"), ...of("vmaf")];
  }

  function commandsOf(side) {
    const key = side === SOURCE ? state.clip : runOf(side).id;
    const boxes = [];
    const add = (title, text) => { if (text) boxes.push(element("p", `${titleOf(side)}: ${title}`), commandBox(text)); };
    if (side === SOURCE) add("the clip", clips.get(state.clip).command);
    else add("encode", runOf(side).encode?.command);
    if (side !== SOURCE) add("decode", runOf(side).decode[0].command);
    const picture = data.commands[key]?.replace("eq(n,FRAME)", `eq(n,${state.frame})`);
    add(picture?.includes("DECODED") ? "the picture, of what the decode wrote" : "the picture", picture);
    return boxes;
  }

  function show(change = {}) {
    Object.assign(state, change);
    const { codecs, own, sides } = settle();
    fill(byId("v-clip"), Object.keys(data.clips).map((clip) => [clip, clip]), state.clip);
    fill(byId("v-codec"), codecs.map((codec) => [codec, labels.get(codec)]), state.codec);
    fill(byId("v-rate"), own.map((id) => [id, runs.get(id).label]), state.run);
    const score = (frame) => digits(runs.get(state.run).frames.psnr_y?.[frame], 1);
    fill(byId("v-frame"), frames().map((frame) => [frame, `${frame}, nvc ${score(frame)} dB`]), state.frame);
    const near = anchors()[0]?.codec;
    const options = sides.map((side) => [side, titleOf(side) + (side === near ? " (nearest in size)" : "")]);
    fill(byId("v-left"), options, state.left);
    fill(byId("v-right"), options, state.right);
    for (const radio of byId("v-zoom").querySelectorAll("input")) radio.checked = Number(radio.value) === state.zoom;
    byId("v-difference").checked = state.difference;
    byId("v-source").checked = state.source;
    place();
    const view = state.source ? "source only" : `left ${titleOf(state.left)} | right ${titleOf(state.right)}`;
    const what = state.difference && !state.source ? `, difference to the source x${DIFFERENCE_GAIN}` : "";
    byId("v-state").textContent = `${state.clip}, frame ${state.frame}: ${view}${what}, zoom ${state.zoom}x`;
    byId("v-numbers").tBodies[0].replaceChildren(...["left", "right"].map((place) => {
      const row = element("tr", "", { "data-side": place });
      const [first, ...rest] = figures(state[place]);
      row.append(element("th", first, { scope: "row" }), ...rest.map((text) => element("td", text)));
      row.firstChild.append(element("span", place));
      return row;
    }));
    byId("v-commands").replaceChildren(...[...new Set([state.left, state.right])].flatMap(commandsOf));
    return draw();
  }

  // Size and split: what changes with every step of the slider.
  function place() {
    const { width, height } = clips.get(state.clip);
    const layers = byId("v-layers");
    layers.style.width = `${width * state.zoom}px`;
    layers.style.height = `${height * state.zoom}px`;
    layers.classList.toggle("whole", state.source);
    byId("v-canvas-right").style.clipPath = `inset(0 0 0 ${state.split}%)`;
    byId("v-line").style.left = `${state.split}%`;
    byId("v-split").value = state.split;
    byId("v-split-text").textContent = `${state.split} %`;
  }

  function split(to) {
    state.split = Math.min(100, Math.max(0, to));
    place();
  }

  function step(by) {
    const at = frames().indexOf(state.frame) + by;
    return show({ frame: frames()[Math.min(frames().length - 1, Math.max(0, at))] });
  }

  const swap = () => show({ left: state.right, right: state.left });
  const pan = (by) => byId("v-stage").scrollBy({ left: by });
  const keys = {
    ArrowLeft: (event) => (event.shiftKey ? pan(-80) : split(state.split - 2)),
    ArrowRight: (event) => (event.shiftKey ? pan(80) : split(state.split + 2)),
    Home: () => split(0),
    End: () => split(100),
    ",": () => step(-1), j: () => step(-1),
    ".": () => step(1), k: () => step(1),
    d: () => show({ difference: !state.difference }),
    s: () => show({ source: !state.source }),
    " ": swap,
  };
  for (const zoom of ZOOMS) keys[zoom] = () => show({ zoom });

  const moves = new Set(["ArrowLeft", "ArrowRight", "Home", "End"]);
  byId("viewer").addEventListener("keydown", (event) => {
    const own = event.target.tagName;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.altKey || event.metaKey || own === "SELECT") return;
    if (event.key === " " && ["BUTTON", "INPUT", "SUMMARY"].includes(own)) return;
    if (moves.has(event.key) && (own === "INPUT" || event.target.classList.contains("scroll"))) return;
    event.preventDefault();
    action(event);
  });
  const choose = (id, key, convert = String) => {
    byId(id).addEventListener("change", (event) => show({ [key]: convert(event.target.value) }));
  };
  for (const key of ["clip", "codec", "left", "right"]) choose(`v-${key}`, key);
  choose("v-rate", "run");
  choose("v-frame", "frame", Number);
  choose("v-zoom", "zoom", Number);
  for (const kind of ["pointerdown", "pointermove"]) {
    byId("v-layers").addEventListener(kind, (event) => {
      const { left, width } = byId("v-layers").getBoundingClientRect();
      if (event.buttons & 1) split(Math.round((100 * (event.clientX - left)) / width));
    });
  }
  byId("v-split").addEventListener("input", (event) => split(Number(event.target.value)));
  byId("v-difference").addEventListener("change", (event) => show({ difference: event.target.checked }));
  byId("v-source").addEventListener("change", (event) => show({ source: event.target.checked }));
  byId("v-flip").addEventListener("click", swap);

  byId("viewer").hidden = false;
  state.clip = Object.keys(data.clips)[0];
  const room = byId("viewer").clientWidth;
  show({ zoom: ZOOMS.findLast((zoom) => zoom === 1 || clips.get(state.clip).width * zoom <= room) });
}

document.querySelectorAll("pre.command").forEach(addCopyButton);
document.querySelectorAll("table.sortable").forEach(makeSortable);
if (byId("viewer-data")) startViewer(parse("results"), parse("viewer-data"));
