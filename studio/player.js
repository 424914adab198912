// Body of a function (element, trigger, props, server, upload, watch): several tracks of one length, of which one is
// heard; another one takes over at the same position. The tracks come as JSON in props.value, see player.py.
const find = (name) => element.querySelector(".player-" + name);
const tracksBox = find("tracks"), playButton = find("play"), flipButton = find("flip"), seek = find("seek");
const time = find("time"), wave = find("wave"), pictures = find("pictures"), links = find("links"), said = find("said");
const inOrder = find("order"), speakers = find("speakers"), wholeButton = find("whole"), view = find("view");
const parts = find("parts"), axis = find("axis"), joinLine = find("join"), head = find("head");
const group = "tracks-" + Math.random().toString(36).slice(2);
const KEPT = 6; // audio elements
const LEAD = 5; // s of the prompt that are heard before its continuation
let tracks = [], current = null, other = null, started = null, order = [], seeking = false;

const track = (id) => tracks.find((t) => t.id === id);
const heard = () => (current === null ? null : speaker(current));
const from = (t) => t.shown_from || 0; // s at the left edge of waveform and picture; their right edge is the end
const place = (t, s) => Math.min(1, Math.max(0, (s - from(t)) / (t.seconds - from(t)))); // 0 to 1 of their width
const percent = (part) => (100 * part).toFixed(3) + "%";
const clock = (s) => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");

function speaker(id) {
  let audio = [...speakers.children].find((a) => a.dataset.id === id);
  if (!audio) {
    audio = document.createElement("audio");
    audio.dataset.id = id;
    audio.preload = "auto";
    audio.src = track(id).url;
    audio.onended = () => ended(id);
    audio.onerror = () => { if (id === current && audio.src) say("This cannot be played any more. Make it again."); };
    for (const event of ["play", "pause", "timeupdate", "seeked", "loadedmetadata"]) audio.addEventListener(event, draw);
    speakers.append(audio);
  }
  order = [id, ...order.filter((i) => i !== id)];
  for (const old of order.splice(KEPT)) silence(old);
  return audio;
}

function silence(id) {
  const audio = [...speakers.children].find((a) => a.dataset.id === id);
  if (!audio) return;
  audio.onerror = audio.onended = null;
  audio.pause();
  audio.removeAttribute("src");
  audio.load();
  audio.remove();
}

function say(text) { said.textContent = text; }

function start(audio) { return audio.play().catch(() => draw()); }

// The new one runs unheard until it is where the old one is.
async function choose(id, position = null) {
  if (id === current || !track(id)) return;
  const before = heard(), at = position === null ? (before ? before.currentTime : 0) : position;
  const playing = before && !before.paused;
  other = current === null ? other : current;
  current = id;
  say("");
  const to = speaker(id);
  to.currentTime = Math.min(at, Math.max(0, track(id).seconds - 0.1));
  lay();
  if (!playing) { if (before) before.pause(); return draw(); }
  to.muted = true;
  await start(to);
  if (position === null && Math.abs(before.currentTime - to.currentTime) > 0.03 && !before.ended) {
    to.currentTime = before.currentTime;
    await new Promise((done) => { to.addEventListener("seeked", done, { once: true }); setTimeout(done, 500); });
  }
  to.muted = false;
  for (const audio of speakers.children) if (audio !== speaker(current)) audio.pause();
  draw();
}

function ended(id) {
  const next = tracks[tracks.findIndex((t) => t.id === id) + 1];
  if (id !== current || !inOrder.checked || !next) return draw();
  choose(next.id, 0).then(() => start(speaker(next.id)));
}

function toggle() {
  const audio = heard();
  if (!audio) return;
  if (!audio.paused) return audio.pause();
  if (audio.error) audio.load();
  start(audio);
}

function lay() {
  const rows = tracks.map((t) => t.id).join("\n");
  if (tracksBox.dataset.rows !== rows) {
    tracksBox.dataset.rows = rows;
    tracksBox.replaceChildren(...tracks.map((t) => {
      const label = document.createElement("label"), radio = document.createElement("input");
      const text = document.createElement("span");
      radio.type = "radio"; radio.name = group; radio.value = t.id;
      radio.onchange = () => choose(t.id);
      label.append(radio, text);
      return label;
    }));
  }
  for (const label of tracksBox.children) {
    const t = track(label.firstChild.value);
    label.firstChild.checked = t.id === current;
    label.lastChild.textContent = t.label;
  }
  const now = track(current);
  element.firstElementChild.classList.toggle("player-empty", !now);
  flipButton.hidden = tracks.length < 2;
  inOrder.parentElement.hidden = tracks.length < 2 || !element.firstElementChild.dataset.order;
  if (!now) return pictures.replaceChildren();
  seek.min = from(now);
  seek.max = now.seconds;
  wholeButton.hidden = from(now) === 0;
  const shown = [now, track(other)].filter((t, i) => t && (i === 0 || element.firstElementChild.dataset.pair));
  if (element.firstElementChild.dataset.pair) shown.sort((a, b) => tracks.indexOf(a) - tracks.indexOf(b));
  pictures.replaceChildren(...shown.filter((t) => t.picture).map((t) => {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption"), marks = document.createElement("div");
    image.src = t.picture; image.alt = "Spectrogram of " + t.label; image.loading = "lazy";
    caption.textContent = t.label;
    figure.className = t.id === current ? "player-now" : "";
    marks.className = "player-hertz";
    marks.append(...(t.hertz || []).slice(1).map(([height, hertz]) => {
      const mark = document.createElement("span");
      mark.textContent = hertz < 1000 ? hertz + " Hz" : hertz / 1000 + " kHz";
      mark.style.bottom = percent(height);
      return mark;
    }));
    if (t.hertz) { image.className = "player-spectrum"; marks.append(image); figure.append(marks, caption); }
    else figure.append(image, caption);
    return figure;
  }));
  links.replaceChildren(...(now.downloads || []).map(([name, url]) => {
    const link = document.createElement("a");
    link.href = url; link.textContent = name; link.download = "";
    if (name !== "WAV") link.onclick = (event) => fetched(event, link);
    return link;
  }));
  if (now.note) { const note = document.createElement("span"); note.textContent = now.note; links.prepend(note); }
  wave.hidden = parts.hidden = axis.hidden = head.hidden = !(now.peaks && now.peaks.length);
  joinLine.hidden = wave.hidden || !now.join;
  if (!wave.hidden) rule(now);
}

// The marks that waveform and picture share: what is prompt, and the seconds.
function rule(now) {
  const join = percent(place(now, now.join || 0)), span = now.seconds - from(now);
  joinLine.style.left = join;
  const names = now.join ? [from(now) ? "last " + Math.round(now.join - from(now)) + " s of the prompt" : "prompt"] : [];
  parts.replaceChildren(...[...names, "continuation"].map((text, i) => {
    const part = document.createElement("span");
    part.textContent = text;
    if (i) part.style.left = "min(max(" + join + ", 11.5em), 100% - 6.5em)";
    return part;
  }));
  const step = [1, 2, 5, 10, 20, 30, 60, 120, 300].find((s) => span / s <= 7) || 600;
  const first = Math.ceil(from(now) / step) * step, marks = [];
  for (let s = first; place(now, s) < 0.92; s += step) { // the last would not have its room
    const mark = document.createElement("span");
    mark.textContent = clock(s);
    mark.style.left = percent(place(now, s));
    marks.push(mark);
  }
  axis.replaceChildren(...marks);
}

// Brings the player, where it begins to play out of sight, into view: on a phone it is far below the form.
function reveal() {
  const box = element.getBoundingClientRect();
  if (element.offsetParent && (box.top < 0 || box.top > innerHeight / 2)) {
    (element.closest(".player-box") || element).scrollIntoView({ block: "start", behavior: "smooth" });
  }
}

// What has to be made first may fail, which is said here and not on a page of its own.
async function fetched(event, link) {
  event.preventDefault();
  say(link.textContent + " is being made ...");
  try {
    const answer = await fetch(link.href);
    if (!answer.ok) return say(answer.status < 500 ? await answer.text() : "It could not be made.");
    const name = /filename\*?=(?:utf-8'')?"?([^";]+)/i.exec(answer.headers.get("content-disposition") || "");
    const copy = document.createElement("a");
    copy.href = URL.createObjectURL(await answer.blob());
    copy.download = name ? decodeURIComponent(name[1]) : "continuation";
    copy.click();
    setTimeout(() => URL.revokeObjectURL(copy.href), 60000);
    say("");
  } catch { say("The studio does not answer."); }
}

function draw() {
  const now = track(current), audio = heard();
  playButton.disabled = !now;
  if (!now) return;
  const playing = !audio.paused && !audio.ended, position = Math.min(audio.currentTime, now.seconds);
  playButton.textContent = playing ? "Pause" : "Play";
  if (!seeking) seek.value = position;
  seek.setAttribute("aria-valuetext", clock(position) + " of " + clock(now.seconds));
  time.textContent = clock(position) + " / " + clock(now.seconds);
  head.style.left = percent(place(now, position));
  if (!wave.hidden) paint(now);
}

function paint(now) {
  const scale = window.devicePixelRatio || 1, width = wave.clientWidth, height = wave.clientHeight;
  if (!width) return;
  if (wave.width !== Math.round(width * scale)) { wave.width = width * scale; wave.height = height * scale; }
  const pen = wave.getContext("2d"), style = getComputedStyle(wave), step = width / now.n_columns;
  const join = now.join ? place(now, now.join) * width : -1;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  now.peaks.forEach((peak, i) => {
    const x = i * step, tall = Math.max(1, (peak / 100) * height);
    pen.fillStyle = style.getPropertyValue(x < join - step / 2 ? "--prompt" : "--new");
    pen.fillRect(x, (height - tall) / 2, Math.max(1, step - 0.4), tall);
  });
}

function update() {
  let value;
  try { value = JSON.parse(props.value || "{}"); } catch { return; }
  const before = tracks;
  tracks = value.tracks || [];
  find("hint").textContent = value.empty || "";
  for (const audio of [...speakers.children]) {
    const old = before.find((t) => t.id === audio.dataset.id), now = track(audio.dataset.id);
    if (!now) silence(audio.dataset.id);
    else if (old && old.seconds !== now.seconds) { // stopped before its end: another length
      const at = audio.currentTime, playing = !audio.paused || audio.error;
      audio.src = now.url;
      audio.currentTime = Math.min(at, now.seconds);
      if (playing && at < now.seconds) start(audio);
    }
  }
  if (!track(current)) current = null;
  if (!track(other)) other = null;
  const first = value.play && track(value.play) ? value.play : null;
  if (first && first !== started) {
    started = first;
    for (const audio of speakers.children) audio.pause();
    current = null;
    choose(first, Math.max(0, (track(first).join || 0) - LEAD)).then(() => start(speaker(first)));
    setTimeout(reveal, 50); // once it is laid out
  } else if (current === null && tracks.length) {
    choose(tracks[0].id, 0);
  }
  if (other === null && value.other && value.other !== current) other = track(value.other) ? value.other : null;
  lay();
  draw();
}

playButton.onclick = toggle;
flipButton.onclick = () => choose(other !== null ? other : tracks[tracks[0].id === current ? 1 : 0].id);
seek.oninput = () => { seeking = true; if (heard()) heard().currentTime = Number(seek.value); };
seek.onchange = () => { seeking = false; };
wholeButton.onclick = () => { heard().currentTime = 0; start(heard()); };
view.onclick = (event) => {
  const box = wave.getBoundingClientRect(), now = track(current);
  if (!now || wave.hidden || event.target.tagName === "FIGCAPTION") return;
  heard().currentTime = from(now) + ((event.clientX - box.left) / box.width) * (now.seconds - from(now));
};
new ResizeObserver(draw).observe(wave);
(function frame() { if (heard() && !heard().paused) draw(); requestAnimationFrame(frame); })();
watch("value", update);
update();
