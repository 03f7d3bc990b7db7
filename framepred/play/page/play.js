"use strict";
// The page of framepred play. Pictures come as bytes (see picture.py), everything else as JSON (see messages.py).

const $ = (id) => document.getElementById(id);
const LABELS = { pause: "Pause", step: "One step", fork: "Fork", anchor: "Back to reality" };
const KEY_NAMES = { " ": "space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", "": "no key" };

let controls = null; // what the run can do, once the server has said so
let state = {}; // paused, forked, plays, ...
let keys = []; // by action or by dimension's end: a key
let commands = {}; // command -> key
let waitingFor = null; // the button whose key is being chosen, and its action
const held = []; // numbers of what is held down, the last one pressed last
let mouse = null; // values that the mouse gives to the first two dimensions
let sentAction = null;
let number = 0; // of the last message that said an action
const pressed = new Map(); // number -> when its key was pressed
const measured = { drawn: [], delays: [] }; // for who measures: when pictures were drawn, and key-to-picture times in ms
window.measured = measured;

const socket = new WebSocket(`ws://${location.host}/ws${location.search}`);
socket.binaryType = "arraybuffer";
socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : draw(data));
socket.onclose = ({ reason }) => {
  note(`${reason || "The connection has ended"}. Reload the page to go on; if that fails, start framepred play again.`, true);
  state.plays = false;
  enable();
};
const send = (message) => socket.readyState === WebSocket.OPEN && state.plays && socket.send(JSON.stringify(message));

let fading = 0;
function note(text, bad = false) {
  clearTimeout(fading);
  fading = setTimeout(() => bad || ($("note").textContent = ""), 10000);
  $("note").textContent = text;
  $("note").className = bad ? "bad" : "";
}

function hear(message) {
  if (message.kind === "error") return note(message.text, true);
  if (message.kind === "kept") return note(`Kept ${message.frames} frames as ${message.name}, with its actions beside it.`);
  if (message.kind === "hello") begin(message.controls);
  const before = state;
  state = message;
  $("run").textContent = state.run;
  for (const id of ["start", "seed", "temperature", "name"]) if (before[id] !== state[id]) $(id).value = state[id];
  $("limit").value = $("limit-value").textContent = state.fps;
  $("start").parentElement.hidden = state.real;
  $("psnr-row").hidden = !state.real;
  $("role").hidden = state.plays;
  enable();
}

function enable() {
  for (const item of document.querySelectorAll("#panel button, #panel input")) item.disabled = !state.plays;
  for (const [name, button] of Object.entries(commandButtons)) {
    if (name === "pause") button.firstChild.textContent = state.paused ? "Play" : "Pause";
    if (name === "fork") button.disabled ||= state.forked;
    button.hidden = name === "anchor" && !state.real;
  }
  $("hint").textContent = hint();
}

function hint() {
  if (!state.plays) return "";
  if (state.forked) return "Four futures of one moment: press the one to go on in.";
  return state.paused ? `Paused. ${keyName(commands.pause)} plays; each action key takes one step.` : "";
}

// Keys

const keyName = (key) => KEY_NAMES[key] ?? key.toUpperCase();
const keyOf = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
const commandButtons = {};

function begin(given) {
  controls = given;
  keys = controls.kind === "continuous" ? controls.keys.flat() : [...controls.keys];
  commands = { ...controls.commands };
  recall();
  $("mouse").hidden = controls.kind !== "continuous";
  commandButtons.restart = $("restart");
  for (const name of Object.keys(LABELS)) {
    const button = (commandButtons[name] = document.createElement("button"));
    button.append(LABELS[name], document.createElement("kbd"));
    button.onclick = () => (command(name), button.blur());
    $("commands").append(button);
  }
  const names = controls.kind === "continuous" ? controls.names.flatMap((n) => [`${n} less`, `${n} more`]) : controls.names;
  names.forEach((name, i) => $("keys").append(row(name, i)));
  showKeys();
}

function row(name, id) {
  const [line, act, key] = ["tr", "button", "button"].map((tag) => document.createElement(tag));
  [act.className, key.className] = ["act", "key"];
  act.textContent = name;
  line.dataset.id = id;
  act.onpointerdown = (event) => (act.setPointerCapture(event.pointerId), press(id, event.timeStamp));
  act.onpointerup = act.onpointercancel = () => (release(id), act.blur());
  key.onclick = () => {
    waitingFor?.button.classList.remove("waiting");
    waitingFor = { button: key, id };
    key.classList.add("waiting");
    key.textContent = "press a key";
  };
  for (const item of [act, key]) line.insertCell().append(item);
  return line;
}

function showKeys() {
  for (const line of $("keys").rows) {
    const id = Number(line.dataset.id);
    line.querySelector(".key").textContent = keyName(keys[id]);
    line.classList.toggle("held", held.includes(id));
  }
  for (const [name, button] of Object.entries(commandButtons)) button.lastChild.textContent = keyName(commands[name]);
}

function choose(key) {
  const { button, id } = waitingFor;
  waitingFor = null;
  button.classList.remove("waiting");
  button.blur();
  if (key !== "Escape") {
    keys = keys.map((other) => (other === key ? "" : other));
    for (const name in commands) if (commands[name] === key) commands[name] = "";
    keys[id] = key;
    remember();
  }
  showKeys();
  enable();
}

// A browser may refuse to store: then keys are as they were at the next start.
const stored = () => `keys of ${state.run ?? ""} ${controls.names.join(" ")}`;
function remember() {
  try { localStorage.setItem(stored(), JSON.stringify({ keys, commands })); } catch { /* refused */ }
}
function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(stored()));
    if (kept?.keys.length === keys.length) ({ keys, commands } = { keys: kept.keys, commands: { ...commands, ...kept.commands } });
  } catch { /* nothing stored */ }
}

addEventListener("keydown", (event) => {
  const key = keyOf(event), target = event.target;
  if (waitingFor) return event.preventDefault(), choose(key);
  if (event.ctrlKey || event.metaKey || event.altKey || (target.tagName === "INPUT" && target.type !== "range")) return;
  if (target.tagName === "BUTTON" && (key === " " || key === "Enter")) return;
  const action = keys.indexOf(key), name = Object.keys(commands).find((n) => commands[n] === key);
  if (action < 0 && !name) return;
  event.preventDefault();
  if (event.repeat) return;
  if (action >= 0) press(action, event.timeStamp);
  else command(name);
});
addEventListener("keyup", (event) => release(keys.indexOf(keyOf(event))));
addEventListener("blur", () => { while (held.length) release(held[0]); });

function press(id, when) {
  if (id < 0 || held.includes(id)) return;
  held.push(id);
  showKeys();
  if (state.paused) say("step", when);
  else say("hold", when);
}

function release(id) {
  const at = held.indexOf(id);
  if (at < 0) return;
  held.splice(at, 1);
  showKeys();
  say("hold");
}

function say(kind, when = null) {
  const action = current(), text = JSON.stringify(action);
  if (kind === "hold" && text === sentAction) return;
  sentAction = kind === "hold" ? text : sentAction;
  number += 1;
  if (when !== null) pressed.set(number, when);
  send({ do: kind, action, key: number });
}

// The action of what is held: of discrete ones the last pressed, of continuous ones all together.
function current() {
  if (controls.kind === "none") return null;
  if (controls.kind === "discrete") return held.length ? held[held.length - 1] : controls.idle;
  return controls.ranges.map(([low, high], d) => {
    const less = held.includes(2 * d), more = held.includes(2 * d + 1);
    if (less !== more) return less ? low : high;
    return mouse && d < 2 && mouse[d] !== undefined ? low + (high - low) * mouse[d] : controls.idle[d];
  });
}

function command(name) {
  if (name === "pause") send({ do: "pause", on: !state.paused });
  else if (name === "step") say("step", performance.now());
  else if (name === "restart") again();
  else send({ do: name });
}

function again() {
  if (!$("again").reportValidity()) return;
  note("");
  send({ do: "restart", start: Number($("start").value), seed: Number($("seed").value), temperature: Number($("temperature").value) });
}

$("again").onsubmit = (event) => (event.preventDefault(), again(), document.activeElement.blur());
$("keeping").onsubmit = (event) => (event.preventDefault(), send({ do: "keep", name: $("name").value }), document.activeElement.blur());
$("limit").oninput = () => ($("limit-value").textContent = $("limit").value);
$("limit").onchange = () => (send({ do: "limit", fps: Number($("limit").value) }), $("limit").blur());

// Pictures

const canvases = [], captions = [];
let shape = ""; // how many pictures there are, and whether the last is real
let drawing = false, next = null;

// While one picture is being decoded, only the latest of those that come waits.
async function draw(data) {
  if (drawing) { next = data; return; }
  drawing = true;
  for (let now = data; now; [now, next] = [next, null]) await drawOne(now);
  drawing = false;
}

async function drawOne(data) {
  const length = new DataView(data).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  const parts = head.sizes.map((size) => {
    at += size;
    return new Blob([new Uint8Array(data, at - size, size)], { type: "image/png" });
  });
  const pictures = await Promise.all(parts.map((part) => createImageBitmap(part)));
  arrange(pictures.length, head.real, pictures[0].width, pictures[0].height);
  pictures.forEach((picture, i) => canvases[i].getContext("2d").drawImage(picture, 0, 0));
  const now = performance.now();
  measured.drawn.push(now);
  for (const [id, when] of pressed) {
    if (head.key === null || id > head.key) continue;
    pressed.delete(id);
    if (id === head.key) measured.delays.push(now - when);
  }
  for (const list of Object.values(measured)) if (list.length > 5000) list.splice(0, 1000);
  describe(head);
}

function describe(head) {
  $("frame").textContent = head.frame;
  $("action").textContent = actionName(head.action);
  $("rate").textContent = head.rate === null ? "-" : head.rate.toFixed(1);
  if (head.entropy !== null) $("entropy").textContent = head.entropy.toFixed(2);
  const near = (head.psnr ?? []).map((value) => `${value.toFixed(1)} dB`);
  $("psnr").textContent = near.length === 1 ? near[0] : "-";
  if (near.length > 1) near.forEach((text, i) => (captions[i].textContent = `future ${i + 1}, ${text}`));
  const delay = measured.delays[measured.delays.length - 1];
  if (delay !== undefined) $("delay").textContent = `${Math.round(delay)} ms`;
}

function actionName(action) {
  if (action === null) return "-";
  return controls.kind === "discrete" ? controls.names[action] : action.map((value) => value.toFixed(2)).join(", ");
}

function arrange(count, real, width, height) {
  const futures = count - (real ? 1 : 0), now = `${count} ${real}`;
  if (now !== shape) {
    shape = now;
    canvases.length = captions.length = 0;
    $("pictures").replaceChildren();
    for (let i = 0; i < count; i++) $("pictures").append(figure(i, futures, real, real && i === count - 1));
  }
  for (const canvas of canvases) {
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  }
  fit(count, width, height);
}

function figure(i, futures, real, isReal) {
  const box = document.createElement("figure"), canvas = document.createElement("canvas"), text = document.createElement("figcaption");
  canvases.push(canvas);
  captions.push(text);
  text.textContent = isReal ? "reality" : futures > 1 ? `future ${i + 1}` : real ? "dream" : "";
  if (futures > 1 && !isReal) {
    const button = document.createElement("button");
    button.className = "future";
    button.setAttribute("aria-label", `Go on in future ${i + 1}`);
    button.onclick = () => send({ do: "choose", index: i });
    button.append(canvas);
    box.append(button, text);
  } else {
    if (controls?.kind === "continuous" && !isReal) steer(canvas);
    box.append(canvas, text);
  }
  return box;
}

// Whole screen pixels for each picture's pixel: every one is as large as the next.
function fit(count, width, height) {
  const columns = count > 2 ? (count === 5 && innerWidth > 1000 ? 3 : 2) : count, rows = Math.ceil(count / columns);
  const pixels = window.devicePixelRatio || 1;
  const wide = ($("world").clientWidth - 16 * columns) / columns, high = Math.max(128, innerHeight * 0.72) / rows - 28;
  const scale = Math.max(1, Math.floor(Math.min(wide / width, high / height) * pixels)) / pixels;
  $("pictures").style.setProperty("--columns", columns);
  for (const canvas of canvases) [canvas.style.width, canvas.style.height] = [`${width * scale}px`, `${height * scale}px`];
}
addEventListener("resize", () => canvases.length && fit(canvases.length, canvases[0].width, canvases[0].height));

// The mouse gives the first dimension from left to right, the second from below to above.
function steer(canvas) {
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (value) => Math.min(1, Math.max(0, value));
    mouse = [share((event.clientX - box.left) / box.width), share((box.bottom - event.clientY) / box.height)];
    requestSteer(event.timeStamp);
  };
  canvas.onpointerdown = (event) => (canvas.setPointerCapture(event.pointerId), point(event));
  canvas.onpointermove = (event) => mouse && point(event);
  canvas.onpointerup = canvas.onpointercancel = () => ((mouse = null), say("hold"));
}

// One message for each picture that the screen shows is enough.
let steering = false;
function requestSteer(when) {
  if (steering) return;
  steering = true;
  requestAnimationFrame(() => ((steering = false), mouse && say("hold", when)));
}
