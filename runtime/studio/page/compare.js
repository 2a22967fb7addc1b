// Two layers in one place, parted by a slider: before on its left, after on its right.

export class Compare {
  constructor(stage, slider) {
    Object.assign(this, { stage, slider });
    slider.addEventListener("input", () => this.part());
    this.part();
  }

  part() {
    const at = this.slider.valueAsNumber;
    this.stage.style.setProperty("--at", `${at}%`);
    this.slider.setAttribute("aria-valuetext", `${at} % before`);
  }

  // As wide as its place and as high as the window leaves; `height` in CSS.
  shape([width, height], most = "62vh") {
    this.stage.style.aspectRatio = `${width} / ${height}`;
    this.stage.style.width = `min(100%, calc(${most} * ${width / height}))`;
  }
}

// A film and what was made of it, played together. What a browser cannot play is shown as stills.
export class Player {
  constructor(at, { say }) {
    this.at = at;
    this.say = say;
    this.compare = new Compare(at("result-stage"), at("result-split"));
    this.before = at("video-before");
    this.after = at("video-after");
    this.stills = [at("still-before"), at("still-after")];
    this.number = 0;
    at("play").addEventListener("click", () => this.toggle());
    at("result-time").addEventListener("input", ({ target }) => this.seek(target.valueAsNumber));
    for (const video of [this.before, this.after]) {
      video.addEventListener("error", () => { if (video.getAttribute("src")) this.fall(); });
    }
    for (const kind of ["play", "pause", "ended"]) this.after.addEventListener(kind, () => this.show());
    this.after.addEventListener("timeupdate", () => this.follow());
  }

  open(film, render) {
    this.close();
    this.film = film;
    this.render = render;
    this.seconds = film?.seconds ?? render.report?.output_seconds ?? 0;
    this.compare.shape(film?.shape ?? [16, 9], "56vh");
    this.at("result-time").max = this.seconds || 1;
    this.at("result-time").step = film ? (1 / film.rate).toFixed(6) : 0.04;
    this.at("result-time").value = 0;
    this.before.hidden = this.after.hidden = false;
    for (const still of this.stills) still.hidden = true;
    this.stuck = false;
    if (film) this.before.src = `/api/films/${film.id}/file`;
    this.after.src = `/api/renders/${render.id}/file`;
    this.after.muted = false;
    this.at("play").disabled = false;
    this.show();
  }

  close() {
    this.number += 1;
    for (const video of [this.before, this.after]) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    for (const still of this.stills) still.removeAttribute("src");
    this.say("");
  }

  fall() {
    if (this.stuck) return;
    this.stuck = true;
    this.before.pause();
    this.after.pause();
    this.before.hidden = this.after.hidden = true;
    this.at("play").disabled = true;
    this.say("This browser does not play one of the two: single frames are shown.");
    this.seek(this.at("result-time").valueAsNumber);
  }

  toggle() {
    if (!this.after.paused) {
      this.before.pause();
      this.after.pause();
      return;
    }
    if (this.film) {
      this.before.currentTime = this.after.currentTime;
      this.before.play().catch(() => {});
    }
    this.after.play().catch((error) => { if (error.name !== "AbortError") this.fall(); });
  }

  seek(seconds) {
    this.clock(seconds);
    if (!this.stuck) {
      this.before.currentTime = seconds;
      this.after.currentTime = seconds;
      return;
    }
    const mine = (this.number += 1);
    const wanted = [this.film && `/api/films/${this.film.id}/before?at=${seconds}`, `/api/renders/${this.render.id}/still?at=${seconds}`];
    setTimeout(() => {
      if (mine !== this.number) return;
      this.stills.forEach((still, n) => {
        still.hidden = !wanted[n];
        if (wanted[n]) still.src = wanted[n];
      });
    }, 120);
  }

  follow() {
    const now = this.after.currentTime;
    this.at("result-time").value = now;
    this.clock(now);
    // Two clocks drift apart: the one without sound follows.
    if (this.film && !this.after.paused && Math.abs(this.before.currentTime - now) > 0.08) this.before.currentTime = now;
  }

  show() {
    this.at("play").textContent = this.after.paused ? "Play" : "Pause";
    if (this.after.paused) this.before.pause();
  }

  clock(seconds) {
    this.at("result-clock").textContent = clock(seconds);
    this.at("result-time").setAttribute("aria-valuetext", clock(seconds));
  }
}

export function clock(seconds, digits = 2) {
  const whole = Math.max(seconds || 0, 0), two = (value) => String(Math.floor(value)).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const rest = digits ? (whole % 60).toFixed(digits).padStart(3 + digits, "0") : two(whole % 60);
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${rest}`;
}
