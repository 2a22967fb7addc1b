import { Compare, Player, clock } from "./compare.js";

const at = (id) => document.getElementById(id);
const THUMBS = 12; // pictures of the timeline
const STATES = {
  waiting: "Waiting", running: "Rendering", stopping: "Stopping", paused: "Paused", done: "Done", failed: "Failed",
};
const QUALITIES = { draft: "Draft", good: "Good", archive: "Archive" };
const WORDS = { strength: "Strength", keep_colours: "Keep the colours" };

let state = { films: [], renders: [] };
let cards = [], offer = null;
let film = null; // the one that is looked at
let time = 0;
let beforeUrl = null, afterUrl = null, planned = 0, uploading = null, opened = null;
const stage = new Compare(at("stage"), at("split"));
const player = new Player(at, { say: (text) => { at("result-notice").textContent = text; } });

// The token has become a cookie: it need not stay in sight, in the history, or in a copied address.
if (location.search.includes("token=")) {
  const address = new URL(location.href);
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

// ---- talking to the studio -------------------------------------------------------------------

async function ask(path, { method = "GET", body, signal } = {}) {
  const given = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(path, { method, signal, ...given });
  if (answer.ok) return answer;
  const text = await answer.text();
  let told = text;
  try { told = JSON.parse(text).error ?? text; } catch { /* it is no JSON: the text itself */ }
  throw new Error(told || answer.statusText);
}

let attempts = 0;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/socket`);
  socket.addEventListener("open", () => { attempts = 0; link("open", "Connected"); });
  socket.addEventListener("message", ({ data }) => { state = JSON.parse(data); show(); });
  socket.addEventListener("close", ({ code, reason }) => {
    link("lost", `${reason ? reason[0].toUpperCase() + reason.slice(1) : "Connection lost"}. Trying again`);
    if (!reason) turnedAway();
    setTimeout(connect, code === 1013 ? 5000 : Math.min(500 * 2 ** attempts, 5000));
    attempts += 1;
  });
}

// A refused socket tells a page nothing: another run, with a token of its own, may have the port by now.
async function turnedAway() {
  const answer = await fetch("/icon.svg").catch(() => null);
  if (answer?.status === 401) link("lost", await answer.text());
}

function link(kind, text) {
  at("link").dataset.state = kind;
  if (at("link").textContent !== text) at("link").textContent = text;
}

function notice(text, kind = "") {
  at("notice").textContent = text;
  at("notice").dataset.kind = kind;
}

function element(name, content = "", fields = {}) {
  const made = document.createElement(name);
  if (content) made.textContent = content;
  for (const [key, value] of Object.entries(fields)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  return made;
}

function size(bytes) {
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

function length(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// ---- videos ----------------------------------------------------------------------------------

function show() {
  at("browse").hidden = !state.folder;
  const known = state.films.map((one) => one.id);
  const wanted = film && known.includes(film.id) ? film.id : remembered(known) ?? known.at(-1);
  list();
  if (!wanted) choose(null);
  else if (film?.id !== wanted) choose(state.films.find((one) => one.id === wanted));
  queue();
}

function remembered(known) {
  const id = location.hash.slice(1);
  return known.includes(id) ? id : null;
}

let listed = "";
function list() {
  const key = JSON.stringify([state.films.map((one) => one.id), film?.id]);
  if (key === listed) return;
  listed = key;
  const held = document.activeElement?.dataset?.film;
  at("films").replaceChildren(...state.films.map((one) => {
    const item = element("li", "", { className: "film" });
    const button = element("button", "", { type: "button", className: "pick-film" });
    button.dataset.film = one.id;
    button.setAttribute("aria-pressed", String(one.id === film?.id));
    const picture = element("img", "", { alt: "", loading: "lazy", src: `/api/films/${one.id}/glance?at=${middle(one)}` });
    const text = element("span", "", { className: "film-text" });
    text.append(element("b", one.name), element("small", [one.seconds ? clock(one.seconds, 0) : "", size(one.bytes)].filter(Boolean).join(" · ")));
    button.append(picture, text);
    button.addEventListener("click", () => choose(one));
    const away = element("button", "×", { type: "button", className: "away", title: "Remove" });
    away.setAttribute("aria-label", `Remove ${one.name}`);
    away.addEventListener("click", () => remove(one));
    item.append(button, away);
    return item;
  }));
  if (held) at("films").querySelector(`[data-film="${held}"]`)?.focus();
}

function middle(one) { return ((one.seconds ?? 0) / 2).toFixed(3); }

async function remove(one) {
  const what = one.own ? "Its uploaded file is deleted." : "The file itself stays where it is.";
  if (!confirm(`Remove ${one.name}? ${what}`)) return;
  try {
    await ask(`/api/films/${one.id}`, { method: "DELETE" });
    notice("");
  } catch (error) { notice(error.message, "error"); }
}

function choose(one) {
  film = one;
  at("empty").hidden = one !== null;
  at("view").hidden = at("look").hidden = at("go").hidden = one === null;
  list();
  if (!one) return;
  if (location.hash.slice(1) !== one.id) history.replaceState(null, "", `#${one.id}`);
  stage.shape(one.shape);
  const slider = at("time");
  slider.max = one.seconds ? Math.max(one.seconds - 0.5 / one.rate, 0.001) : 1;
  slider.step = (1 / one.rate).toFixed(6); // an arrow key goes one frame on
  time = one.seconds ? Math.round(one.seconds / 2 * one.rate) / one.rate : 0;
  at("about").textContent = [`${one.width} × ${one.height}`, `${one.rate} fps`, one.codec, one.audio.length ? one.audio.join(", ") : "no sound", one.hdr ? "HDR" : ""].filter(Boolean).join(" · ");
  at("curtain").hidden = false;
  at("curtain").textContent = "Reading the picture";
  at("before").hidden = at("after").hidden = at("parted").hidden = true;
  strip(one);
  unplan();
  look(true);
  pictures();
}

function strip(one) {
  const count = one.seconds && one.seconds > 0.5 ? THUMBS : 1;
  at("strip").replaceChildren(...Array.from({ length: count }, (_, n) =>
    element("img", "", { alt: "", src: `/api/films/${one.id}/glance?at=${((one.seconds ?? 0) * (n + 0.5) / count).toFixed(3)}` })));
}

// ---- one frame, before and after -------------------------------------------------------------

// The newest wish wins: one request is on its way, and one at most waits.
function newest(work) {
  let running = false, again = null;
  return async function run(...given) {
    if (running) { again = given; return; }
    running = true;
    try { await work(...given); } finally {
      running = false;
      if (again) { const next = again; again = null; run(...next); }
    }
  };
}

const drawBefore = newest(async () => {
  const mine = film, when = time;
  if (!mine) return;
  try {
    const blob = await (await ask(`/api/films/${mine.id}/before?at=${when.toFixed(3)}`)).blob();
    if (mine !== film) return;
    if (beforeUrl) URL.revokeObjectURL(beforeUrl);
    beforeUrl = URL.createObjectURL(blob);
    at("before").src = beforeUrl;
    await at("before").decode().catch(() => {});
    at("before").hidden = false;
    at("curtain").hidden = true;
  } catch (error) { curtain(error.message); }
});

const drawAfter = newest(async () => {
  const mine = film, chosen = choices(), when = time;
  if (!mine) return;
  if (!chosen.models.length) {
    at("after").hidden = at("parted").hidden = at("busy").hidden = true;
    return;
  }
  const late = setTimeout(() => { at("busy").hidden = false; }, 250);
  try {
    const blob = await (await ask(`/api/films/${mine.id}/after?at=${when.toFixed(3)}`, { method: "POST", body: chosen })).blob();
    if (mine !== film || !choices().models.length) return;
    if (afterUrl) URL.revokeObjectURL(afterUrl);
    afterUrl = URL.createObjectURL(blob);
    at("after").src = afterUrl;
    await at("after").decode().catch(() => {});
    at("after").hidden = at("parted").hidden = false;
    at("after").dataset.models = chosen.models.join("+");
    notice("");
  } catch (error) {
    notice(error.message, "error");
  } finally {
    clearTimeout(late);
    at("busy").hidden = true;
  }
});

function curtain(text) {
  at("curtain").textContent = text;
  at("curtain").hidden = false;
}

function look(quiet = false) {
  at("time").value = time;
  at("clock").textContent = clock(time);
  at("time").setAttribute("aria-valuetext", clock(time));
  drawBefore();
  drawAfter();
  if (!quiet) later();
}

let waiting = 0;
function later() {
  clearTimeout(waiting);
  waiting = setTimeout(pictures, 900);
}

function step(frames) {
  if (!film) return;
  time = Math.min(Math.max(time + frames / film.rate, 0), Number(at("time").max));
  look();
}

at("time").addEventListener("input", ({ target }) => { time = target.valueAsNumber; look(); });
at("back").addEventListener("click", () => step(-1));
at("forth").addEventListener("click", () => step(1));

// ---- what is made of it ----------------------------------------------------------------------

async function models() {
  const found = await (await ask("/api/models")).json();
  cards = found.models;
  offer = found.choices;
  fill(at("styles"), "style", [{ name: "", title: "None" }, ...cards.filter((card) => card.task === "style")]);
  const names = cards.map((card) => card.name);
  at("tone").hidden = !names.some((name) => names.includes(`${name}-sharp`));
  upscalers();
  pills(at("qualities"), "quality", offer.qualities.map((name) => [name, QUALITIES[name] ?? name]), "good");
  at("suffix").replaceChildren(...offer.suffixes.map((name) => new Option(name.slice(1).toUpperCase(), name)));
  at("codec").replaceChildren(new Option("By the file", "auto"), ...offer.codecs.map(({ name }) => new Option(name.toUpperCase(), name)));
  codec();
  mixes();
  drawAfter();
  pictures();
}

function upscalers() {
  const names = cards.map((card) => card.name);
  const sharp = tone() === "sharp";
  const shown = cards.filter((card) => {
    if (card.task !== "upscale") return false;
    if (card.name.endsWith("-sharp") && names.includes(card.name.slice(0, -6))) return sharp;
    return !(sharp && names.includes(`${card.name}-sharp`));
  });
  const before = picked("upscale"), base = before.replace(/-sharp$/, "");
  fill(at("upscalers"), "upscale", [{ name: "", title: "As it is" }, ...shown]);
  const now = shown.find((card) => card.name.replace(/-sharp$/, "") === base);
  if (before && now) at("look").elements.upscale.value = now.name;
  pictures();
}

function tone() { return document.querySelector("input[name=tone]:checked")?.value ?? "faithful"; }
function picked(name) { return document.querySelector(`input[name=${name}]:checked`)?.value ?? ""; }

function fill(place, group, list) {
  place.replaceChildren(...list.map((card, n) => {
    const label = element("label", "", { className: "model" });
    const input = element("input", "", { type: "radio", name: group, value: card.name, checked: n === 0 });
    const picture = element("span", "", { className: "thumb" });
    if (card.name) picture.append(element("img", "", { alt: "", hidden: true }));
    else picture.append(element("span", card.title, { className: "plain" }));
    picture.firstChild.dataset.model = card.name;
    const text = element("span", "", { className: "model-text" });
    text.append(element("b", card.name ? words(card.name) : card.title));
    if (card.own) text.append(element("small", card.scale > 1 ? `${card.scale}×, your own` : "your own"));
    label.append(input, picture, text);
    label.title = [card.title, card.licence].filter(Boolean).join(" · ");
    return label;
  }));
}

function words(name) {
  const text = name.replace(/^upscale-(\d)x.*/, "Enlarge $1×").replaceAll("-", " ");
  return text[0].toUpperCase() + text.slice(1);
}

function pills(place, group, list, chosen) {
  place.replaceChildren(...list.map(([value, text]) => {
    const label = element("label");
    label.append(element("input", "", { type: "radio", name: group, value, checked: value === chosen }), element("span", text));
    return label;
  }));
}

// What mixes the result with the original, where this velatura's runs have it: as the model's card says
// until a person says otherwise.
function mixes() {
  at("mixed").hidden = !offer.mixed.length;
  at("mixes").replaceChildren(...offer.mixed.map(({ name, switch: isSwitch, help }) => {
    const text = WORDS[name] ?? name, place = element("p"), label = element("label", "", { title: help });
    const input = element("input", "", { type: isSwitch ? "checkbox" : "range", name, id: `mix-${name}` });
    if (isSwitch) {
      label.className = "tick";
      input.indeterminate = true;
      label.append(input, element("span", text));
      place.append(label);
    } else {
      Object.assign(input, { min: 0, max: 1, step: 0.05, value: 1 });
      const value = element("output", "by the model");
      label.htmlFor = input.id;
      label.append(element("span", text), value);
      place.append(label, input);
      input.addEventListener("input", () => {
        value.textContent = `${Math.round(input.value * 100)} %`;
        input.dataset.said = "";
        drawAfter();
      });
    }
    input.addEventListener("change", () => { input.dataset.said = ""; });
    return place;
  }));
}

function choices() {
  const found = { models: [picked("style"), picked("upscale")].filter(Boolean), suffix: at("suffix").value || ".mp4" };
  if (!offer) return found;
  found.quality = picked("quality") || "good";
  if (at("codec").value !== "auto") found.codec = at("codec").value;
  if (at("crf").value !== "" && at("crf").validity.valid) found.crf = at("crf").valueAsNumber;
  if (at("preset").value) found.preset = at("preset").value;
  if (!at("audio").checked) found.audio = false;
  if (at("steady").valueAsNumber > 0 && picked("style")) found.stabilize = at("steady").valueAsNumber;
  for (const { name, switch: isSwitch } of offer.mixed) {
    const input = at(`mix-${name}`);
    if ("said" in input.dataset) found[name] = isSwitch ? input.checked : input.valueAsNumber;
  }
  return found;
}

function codec() {
  const name = at("codec").value === "auto" ? (at("suffix").value === ".webm" ? "vp9" : "h264") : at("codec").value;
  const found = offer.codecs.find((one) => one.name === name);
  const kept = at("preset").value;
  at("preset").replaceChildren(new Option("By the quality", ""), ...found.presets.map((one) => new Option(one, one)));
  at("preset").value = found.presets.includes(kept) ? kept : "";
  at("preset").disabled = !found.presets.length;
  at("crf").disabled = !found.crf;
  if (found.crf) [at("crf").min, at("crf").max] = found.crf;
  at("crf-range").textContent = found.crf ? `${found.crf[0]} best, ${found.crf[1]} worst` : "";
}

// Each model's picture of this frame, made by the model itself, one after another.
const pictures = newest(async () => {
  const mine = film, when = time;
  if (!mine || !cards.length) return;
  for (const picture of document.querySelectorAll(".thumb img")) {
    const key = `${mine.id} ${when.toFixed(3)}`;
    if (picture.dataset.made === key) continue;
    const path = `/api/films/${mine.id}/card?at=${when.toFixed(3)}&model=${encodeURIComponent(picture.dataset.model)}`;
    try {
      const blob = await (await ask(path)).blob();
      if (mine !== film) return;
      if (picture.src) URL.revokeObjectURL(picture.src);
      picture.src = URL.createObjectURL(blob);
      picture.hidden = false;
      picture.dataset.made = key;
      picture.parentNode.classList.remove("broken");
    } catch (error) {
      picture.parentNode.classList.add("broken");
      picture.parentNode.title = error.message;
    }
    if (when !== time) return; // another frame: from the beginning, by a later call
  }
});

at("look").addEventListener("change", ({ target }) => {
  if (target.name === "tone") upscalers();
  if (target.id === "codec" || target.id === "suffix") codec();
  unplan();
  if (target.name !== "quality" && !target.closest("details")) drawAfter();
});
at("steady").addEventListener("input", ({ target }) => {
  at("steady-value").textContent = target.valueAsNumber ? `${Math.round(target.valueAsNumber * 100)} %` : "off";
});

function unplan() {
  planned += 1;
  const { models: chain } = choices(), some = chain.length > 0;
  at("estimate").disabled = at("start").disabled = !some;
  at("plan").textContent = some ? chain.map(words).join(", then ") : "Choose a style or a size.";
  at("plan").dataset.kind = "";
  at("plan-notes").hidden = true;
  at("estimate").textContent = "Estimate";
}

at("estimate").addEventListener("click", async () => {
  unplan();
  const mine = planned;
  at("estimate").disabled = true;
  at("plan").textContent = "Trying a short sample…";
  try {
    const report = await (await ask(`/api/films/${film.id}/plan`, { method: "POST", body: choices() })).json();
    if (mine !== planned) return;
    const parts = [];
    if (report.seconds) parts.push(`about ${length(report.seconds.likely)} (${length(report.seconds.least)} to ${length(report.seconds.most)})`);
    if (report.output_bytes) parts.push(`about ${size(report.output_bytes.likely)}`);
    parts.push(`${report.output.size.replace("x", " × ")}, ${report.output.codec}`);
    at("plan").textContent = parts.join(" · ");
    const notes = [...report.streams, ...report.notes];
    if (report.fits === false) {
      at("plan").dataset.kind = "error";
      notes.unshift(`It needs ${size(report.needed_bytes)} while it is made, and ${size(report.free_bytes)} are free.`);
    }
    at("plan-notes").replaceChildren(...[...new Set(notes)].map((note) => element("li", note)));
    at("plan-notes").hidden = !notes.length;
  } catch (error) {
    if (mine !== planned) return;
    at("plan").textContent = error.message;
    at("plan").dataset.kind = "error";
  } finally {
    if (mine === planned) at("estimate").disabled = false;
  }
});

at("look").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("start").disabled = true;
  try {
    await ask("/api/renders", { method: "POST", body: { film: film.id, choices: choices() } });
    notice("");
    at("queue-title").scrollIntoView({ block: "nearest" });
  } catch (error) { notice(error.message, "error"); }
  at("start").disabled = false;
});

// ---- the queue -------------------------------------------------------------------------------

const rows = new Map();

function queue() {
  const place = at("renders");
  for (const [id, row] of rows) {
    if (!state.renders.some((render) => render.id === id)) { row.item.remove(); rows.delete(id); }
  }
  place.querySelector(".none")?.remove();
  if (!state.renders.length) place.append(element("li", "Nothing was made yet.", { className: "none" }));
  for (const render of state.renders) {
    let row = rows.get(render.id);
    if (!row) {
      row = build(render.id);
      rows.set(render.id, row);
      place.prepend(row.item);
    }
    update(row, render);
    if (opened === render.id) facts(render);
  }
}

function build(id) {
  const item = element("li", "", { className: "render" });
  item.dataset.render = id;
  const title = element("p", "", { className: "render-title" }), name = element("b"), chain = element("span");
  title.append(name, chain);
  const status = element("p", "", { className: "render-state" }), word = element("b"), detail = element("span");
  word.setAttribute("role", "status");
  status.append(word, detail);
  const bar = element("progress", "", { max: 1, value: 0 });
  const error = element("p", "", { className: "notice" });
  error.dataset.kind = "error";
  const buttons = element("div", "", { className: "buttons" });
  item.append(title, status, bar, error, buttons);
  return { id, item, name, chain, word, detail, bar, error, buttons, kind: "" };
}

function update(row, render) {
  const chain = (render.choices.models ?? []).map(words).join(", then ");
  set(row.name, render.name);
  set(row.chain, ` ${chain}`);
  row.item.dataset.state = render.state;
  set(row.word, render.verifying ? "Checking" : STATES[render.state]);
  const part = render.total ? Math.min(render.frames / render.total, 1) : 0;
  const told = [];
  if (render.state === "done" && render.report) {
    told.push(size(render.report.output_bytes ?? 0), `${render.report.frames_out} frames`, `${render.report.fps} fps`);
    if (render.verified) told.push(verdict(render.verified));
  } else if (["running", "paused", "stopping", "waiting"].includes(render.state) && (render.frames || render.state === "running")) {
    if (render.total) told.push(`${Math.floor(part * 100)} %`, `${render.frames} of ${render.total} frames`);
    else told.push(`${render.frames} frames`);
    if (render.state === "running" && render.fps) told.push(`${render.fps.toFixed(1)} fps`);
    if (render.state === "running" && render.left !== null) told.push(`${length(render.left)} left`);
  }
  set(row.detail, told.join(" · "));
  row.bar.hidden = !["running", "paused", "stopping", "waiting"].includes(render.state);
  row.bar.setAttribute("aria-label", `${render.name}, ${chain}`);
  if (render.state === "running" && !render.total) row.bar.removeAttribute("value");
  else row.bar.value = part;
  set(row.error, render.error ?? "");
  row.error.hidden = !render.error;
  const kind = `${render.state} ${render.output !== null}`;
  if (kind !== row.kind) {
    row.kind = kind;
    const held = row.buttons.contains(document.activeElement);
    row.buttons.replaceChildren(...actions(row.id, render));
    if (held) row.buttons.firstElementChild?.focus();
  }
}

function set(place, text) { if (place.textContent !== text) place.textContent = text; }

function verdict(report) {
  if (report.error) return "could not be checked";
  return report.wrong ? `${report.wrong} of ${report.checks} checks do not hold` : `all ${report.checks} checks hold`;
}

function actions(id, render) {
  const found = [];
  const add = (text, work, main = false) => {
    const button = element("button", text, { type: "button" });
    button.setAttribute("aria-label", `${text}: ${render.name}`);
    if (main) button.className = "main";
    button.addEventListener("click", work);
    found.push(button);
  };
  const steer = (what) => () => ask(`/api/renders/${id}/${what}`, { method: "POST" }).catch((error) => notice(error.message, "error"));
  if (["running", "waiting"].includes(render.state)) add("Pause", steer("pause"));
  if (render.state === "paused") add("Resume", steer("resume"), true);
  if (render.state === "failed") add("Try again", steer("resume"), true);
  if (render.output !== null) {
    add("View", () => view(id), render.state === "done");
    const load = element("a", "Download", { className: "button", href: `/api/renders/${id}/file?download=1` });
    load.setAttribute("download", render.file);
    load.setAttribute("aria-label", `Download: ${render.file}`);
    found.push(load);
  }
  const ended = ["done", "failed"].includes(render.state);
  add(ended ? "Remove" : "Cancel", () => {
    const what = render.output !== null ? "The file that was made is deleted." : "What was made of it is thrown away.";
    if (!confirm(`${ended ? "Remove" : "Cancel"} ${render.name}? ${what}`)) return;
    ask(`/api/renders/${id}`, { method: "DELETE" }).catch((error) => notice(error.message, "error"));
  });
  return found;
}

// ---- a result --------------------------------------------------------------------------------

function view(id) {
  const render = state.renders.find((one) => one.id === id);
  if (!render) return;
  opened = id;
  facts(render);
  at("result").showModal();
  player.open(state.films.find((one) => one.id === render.film) ?? null, render);
}

function facts(render) {
  set(at("result-title"), render.name);
  const report = render.report ?? {};
  set(at("result-facts"), [
    (render.choices.models ?? []).map(words).join(", then "), report.output_bytes ? size(report.output_bytes) : "",
    report.frames_out ? `${report.frames_out} frames` : "", report.seconds ? `made in ${length(report.seconds)}` : "",
  ].filter(Boolean).join(" · "));
  at("download").href = `/api/renders/${render.id}/file?download=1`;
  at("download").setAttribute("download", render.file);
  set(at("result-path"), render.output ?? "");
  const found = render.verified;
  at("report").hidden = !found && !render.verifying;
  set(at("report-title"), found ? `Compared with the source: ${verdict(found)}` : "Comparing it with the source…");
  const key = `${render.id} ${JSON.stringify(found)}`;
  if (at("checks").dataset.key === key) return;
  at("checks").dataset.key = key;
  at("checks").replaceChildren();
  if (found) checks(render.id, key);
}

async function checks(id, key) {
  try {
    const report = await (await ask(`/api/renders/${id}/verified`)).json();
    if (at("checks").dataset.key !== key) return;
    at("checks").replaceChildren(...(report.checks ?? []).map((one) => {
      const row = element("tr");
      row.dataset.holds = String(one.holds);
      row.append(...[one.where, one.kind, one.promised, one.found, one.holds ? "yes" : `no: ${one.meaning}`].map((text) => element("td", text)));
      return row;
    }));
  } catch (error) { at("result-notice").textContent = error.message; }
}

at("result").addEventListener("close", () => { opened = null; player.close(); });
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

// ---- adding videos ---------------------------------------------------------------------------

function upload(file) {
  if (uploading) { notice("One upload is under way: wait for it, or stop it.", "error"); return; }
  if (file.size > state.limit) { notice(`${file.name} is larger than the ${size(state.limit)} that are taken.`, "error"); return; }
  notice("");
  const request = new XMLHttpRequest();
  uploading = request;
  at("upload").hidden = false;
  at("upload-text").textContent = `Uploading ${file.name}`;
  at("upload-part").value = 0;
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    at("upload-part").value = total ? loaded / total : 0;
    if (loaded === total) at("upload-text").textContent = `Reading ${file.name}`;
  });
  request.addEventListener("loadend", () => {
    uploading = null;
    at("upload").hidden = true;
    if (request.status === 201) {
      history.replaceState(null, "", `#${JSON.parse(request.responseText).id}`);
      film = null;
      show();
    } else if (request.status) notice(request.responseText, "error");
    else notice(`${file.name} was not uploaded.`, "error");
  });
  request.open("PUT", `/api/films?name=${encodeURIComponent(file.name.slice(-200))}`);
  request.send(file);
}

at("pick").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) upload(target.files[0]);
  target.value = "";
});
at("upload-stop").addEventListener("click", () => uploading?.abort());

let over = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); over += 1; at("drop").hidden = false; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("dragleave", () => { over -= 1; at("drop").hidden = over > 0 ? at("drop").hidden : true; });
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  at("drop").hidden = true;
  const file = event.dataTransfer?.files[0];
  if (file) upload(file);
});

async function browse(path) {
  at("browser-notice").textContent = "";
  try {
    const found = await (await ask(`/api/folder?path=${encodeURIComponent(path)}`)).json();
    at("browser-path").textContent = found.path || "The folder";
    const items = [];
    const entry = (text, detail, work) => {
      const item = element("li"), button = element("button", "", { type: "button" });
      button.append(element("span", text), element("small", detail));
      button.addEventListener("click", work);
      item.append(button);
      items.push(item);
    };
    const inside = (name) => (found.path ? `${found.path}/${name}` : name);
    if (found.path) entry("‹ Back", "", () => browse(found.path.split("/").slice(0, -1).join("/")));
    for (const name of found.folders) entry(`${name}/`, "folder", () => browse(inside(name)));
    for (const one of found.files) entry(one.name, size(one.bytes), () => take(inside(one.name)));
    if (!found.folders.length && !found.files.length) items.push(element("li", "No video here.", { className: "none" }));
    if (found.more) items.push(element("li", `and ${found.more} more`, { className: "none" }));
    at("browser-list").replaceChildren(...items);
    at("browser-list").querySelector("button")?.focus();
  } catch (error) { at("browser-notice").textContent = error.message; }
}

async function take(path) {
  at("browser-notice").textContent = "Reading it…";
  try {
    const one = await (await ask("/api/films", { method: "POST", body: { path } })).json();
    at("browser").close();
    history.replaceState(null, "", `#${one.id}`);
    film = null;
    show();
  } catch (error) { at("browser-notice").textContent = error.message; }
}

at("browse").addEventListener("click", () => { at("browser").showModal(); browse(""); });

connect();
models().catch((error) => notice(error.message, "error"));
