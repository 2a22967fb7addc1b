import { Chart } from "./chart.js";
import { Picture } from "./picture.js";

const at = (id) => document.getElementById(id);
const CONDITIONS = {
  starting: "Starting",
  holding: "Holding the deadline",
  late: "Behind the deadline",
  off: "Off: frames pass through",
  stalled: "No frames come",
  ended: "The run has ended",
};
const OPENING = 90000; // milliseconds for which a model that was asked for may be on its way
const HOLD = 800; // milliseconds for which a control keeps what a person has set, until the run has it too
const switches = ["model", "strength", "on", "compare", "snapshot", "record"].map(at);

let socket = null, attempts = 0, split = 0.5, events = "", available = "", ladder = "";
let why = "Connection lost"; // what is told until there is a connection again
let wanted = null; // the model that was asked for, until the run has it
const held = new Map();

// The token has become a cookie: it need not stay in sight, in the history, or in a copied address.
if (location.search.includes("token=")) {
  const address = new URL(location.href);
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

const chart = new Chart(at("chart"));
const picture = new Picture(at("video"), at("still"), {
  send,
  say: (how) => { at("how").textContent = how; },
  came: () => { at("curtain").hidden = true; },
});

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = new WebSocket(`${scheme}://${location.host}/socket`);
  socket = mine;
  mine.binaryType = "arraybuffer";
  mine.addEventListener("message", ({ data }) => {
    if (mine !== socket) return;
    if (typeof data === "string") hear(JSON.parse(data));
    else picture.draw(data);
  });
  mine.addEventListener("close", ({ code, reason }) => { if (mine === socket) lost(code, reason); });
}

function lost(code, reason) {
  picture.stop();
  const wait = code === 1013 ? 5000 : Math.min(500 * 2 ** attempts, 5000);
  attempts += 1;
  if (reason) why = reason[0].toUpperCase() + reason.slice(1);
  else turnedAway();
  link("lost", `${why}. Trying again`);
  curtain(why);
  at("condition").dataset.state = "starting";
  text("condition", "No connection");
  for (const control of switches) control.disabled = true;
  at("split").disabled = true;
  setTimeout(connect, wait);
}

// A refused socket tells a page nothing: another run, with a token of its own, may have the port by now.
async function turnedAway() {
  const answer = await fetch("/icon.svg").catch(() => null);
  if (answer?.status !== 401) return;
  why = (await answer.text()).replace(/\.$/, "");
  link("lost", `${why}. Trying again`);
  curtain(why);
}

function link(state, text) {
  const shown = at("link");
  shown.dataset.state = state;
  if (shown.textContent !== text) shown.textContent = text;
}

function curtain(text) {
  at("curtain").textContent = text;
  at("curtain").hidden = false;
}

function hear(message) {
  if (message.type === "hello") {
    attempts = 0;
    why = "Connection lost";
    link("open", "Connected");
    curtain("Waiting for the picture");
    chart.clear();
    picture.start(message.rtc);
    show(message);
  } else if (message.type === "state") {
    show(message);
  } else if (message.type === "answer") {
    picture.answer(message);
  } else if (message.type === "recorded") {
    const word = message.on ? "Recording to" : "Recorded";
    notice(message.path ? `${word} ${message.path}` : "No recording was under way");
  } else if (message.type === "error") {
    held.clear();
    notice(message.text, "error");
  }
}

function notice(text, kind = "") {
  at("notice").textContent = text;
  at("notice").dataset.kind = kind;
}

function show(state) {
  const { condition } = state;
  // Read out only when the word changes, not each second that it goes on.
  at("condition").setAttribute("aria-live", condition === at("condition").dataset.state ? "off" : "polite");
  at("condition").dataset.state = condition;
  const silent = condition === "stalled" && state.silent ? `No frames for ${Math.round(state.silent)} s` : null;
  text("condition", silent ?? CONDITIONS[condition]);
  picture.moving = condition !== "stalled" && state.fps > 0;
  if (state.size) {
    const [width, height] = state.shape;
    at("stage").style.aspectRatio = `${width} / ${height}`;
    at("stage").style.width = `min(100%, calc(74vh * ${width / height}))`;
    text("size", `${state.size[0]} × ${state.size[1]}`);
  }
  chart.add(state.points, state.now, state.deadline);
  const p50 = milliseconds(state.p50), p99 = milliseconds(state.p99), deadline = milliseconds(state.deadline);
  text("p50", p50);
  text("p99", p99);
  text("deadline", deadline);
  at("chart").setAttribute("aria-label", `Latency: median ${p50}, p99 ${p99}, deadline ${deadline}`);
  text("fps", state.fps ? String(state.fps) : "–");
  climb(state.ladder, state.rung);
  if (state.trouble) notice(state.trouble, "error");
  if (!("on" in state)) return;
  for (const name of ["dropped", "late", "processed", "passed", "repeated"]) {
    text(name, state[name].toLocaleString("en"));
  }
  for (const control of switches) control.disabled = false;
  at("split").disabled = false;
  choose(state);
  if (free("on")) at("on").setAttribute("aria-checked", String(state.on));
  if (free("strength")) strength(state.strength);
  if (free("split")) part(state.split);
  at("record").setAttribute("aria-pressed", String(state.recording !== null));
  text("record", state.recording === null ? "Record" : "Stop");
  list(state.events);
}

function text(id, value) { if (at(id).textContent !== value) at(id).textContent = value; }

function milliseconds(value) { return value === null ? "–" : `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`; }

function climb(rungs, rung) {
  const found = JSON.stringify([rungs, rung]);
  if (found === ladder) return;
  ladder = found;
  text("rung", rungs.some(([name]) => name === rung) ? "" : rung ?? "");
  at("ladder").hidden = !rungs.length;
  at("ladder").replaceChildren(...rungs.map(([name, cost]) => {
    const item = document.createElement("li");
    item.append(element("span", name), element("span", cost ? milliseconds(cost) : ""));
    if (name === rung) item.setAttribute("aria-current", "true");
    return item;
  }));
}

function choose({ models, available: names }) {
  const chain = models.join(" + "), select = at("model");
  const all = names.includes(chain) || !chain ? names : [chain, ...names];
  if (JSON.stringify(all) !== available) {
    available = JSON.stringify(all);
    select.replaceChildren(...all.map((name) => new Option(name)));
  }
  select.disabled = !all.length;
  if (wanted === chain) {
    wanted = null;
    held.delete("model");
    notice(`Changed to ${chain}`);
  }
  if (free("model")) {
    wanted = null;
    select.value = chain;
  }
}

function strength(value) {
  at("strength").value = value;
  text("strength-value", `${Math.round(at("strength").value * 100)} %`);
}

function part(value) {
  at("compare").setAttribute("aria-checked", String(value !== null));
  at("parted").hidden = value === null;
  if (value === null) return;
  split = value;
  at("split").value = value;
  at("split").setAttribute("aria-valuetext", `${Math.round(value * 100)} % before`);
}

function list(found) {
  const key = JSON.stringify(found);
  if (key === events || !found.length) return;
  events = key;
  at("events").replaceChildren(...found.toReversed().map((event) => {
    const item = document.createElement("li");
    item.append(element("time", clock(event.at)), element("span", event.text));
    return item;
  }));
}

function clock(seconds) {
  const whole = Math.floor(seconds), two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function element(name, content) {
  const made = document.createElement(name);
  made.textContent = content;
  return made;
}

function hold(name, time = HOLD) { held.set(name, performance.now() + time); }
function free(name) { return performance.now() > (held.get(name) ?? 0); }

at("model").addEventListener("change", ({ target }) => {
  hold("model", OPENING);
  wanted = target.value;
  notice(`Opening ${wanted}`);
  send({ type: "models", value: wanted.split(" + ") });
});
at("strength").addEventListener("input", ({ target }) => {
  hold("strength");
  strength(target.valueAsNumber);
  send({ type: "strength", value: target.valueAsNumber });
});
at("on").addEventListener("click", ({ currentTarget }) => {
  hold("on");
  const on = currentTarget.getAttribute("aria-checked") !== "true";
  currentTarget.setAttribute("aria-checked", String(on));
  send({ type: "off", value: !on });
});
at("compare").addEventListener("click", ({ currentTarget }) => {
  hold("split");
  const value = currentTarget.getAttribute("aria-checked") === "true" ? null : split;
  part(value);
  send({ type: "split", value });
});
at("split").addEventListener("input", ({ target }) => {
  hold("split");
  part(target.valueAsNumber);
  send({ type: "split", value: target.valueAsNumber });
});
at("record").addEventListener("click", ({ currentTarget }) => {
  send({ type: "record", value: currentTarget.getAttribute("aria-pressed") !== "true" });
});
at("snapshot").addEventListener("click", async () => {
  try {
    const answer = await fetch("/snapshot.png");
    if (!answer.ok) throw new Error(await answer.text());
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))?.[1] ?? "velatura.png";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    notice(`Saved ${name}`);
  } catch (error) {
    notice(`No snapshot: ${error.message}`, "error");
  }
});

connect();
