// The latency of the last minutes: median and p99 of each second, and the deadline.

const SECONDS = 180;
const LEFT = 52, RIGHT = 8, TOP = 10, BOTTOM = 24;

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = new Map();
    this.now = 0;
    this.deadline = 0;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() { this.points.clear(); }

  // Points are [second, p50, p99], the latter in milliseconds.
  add(points, now, deadline) {
    const before = this.points.size ? Math.max(...this.points.keys()) : -1;
    for (const [at, p50, p99] of points) this.points.set(at, [p50, p99]);
    for (const at of this.points.keys()) if (at < now - SECONDS) this.points.delete(at);
    const changed = now !== this.now || deadline !== this.deadline || before < 0;
    this.now = now;
    this.deadline = deadline;
    if (changed) this.draw();
  }

  draw() {
    const { canvas } = this, ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.scale(ratio, ratio);
    pen.font = `12px ${style.fontFamily}`;
    pen.textBaseline = "middle";

    const values = [...this.points.values()].map((point) => point[1] ?? 0);
    const top = ceiling(Math.max(this.deadline * 1.5, ...values, 1));
    const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (this.now - at) / SECONDS);
    const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - Math.min(value, top) / top);

    pen.lineWidth = 1;
    for (let part = 0; part <= 4; part += 1) {
      const value = (top * part) / 4, at = Math.round(y(value)) + 0.5;
      pen.strokeStyle = colour("--line");
      line(pen, [[LEFT, at], [width - RIGHT, at]]);
      if (part % 2) continue;
      pen.fillStyle = colour("--soft");
      pen.textAlign = "right";
      pen.fillText(`${number(value)} ms`, LEFT - 8, at);
    }
    pen.fillStyle = colour("--soft");
    for (const minutes of [3, 2, 1, 0]) {
      pen.textAlign = minutes === 3 ? "left" : minutes ? "center" : "right";
      pen.fillText(minutes ? `−${minutes} min` : "now", x(this.now - minutes * 60), height - 9);
    }

    const seconds = [...this.points.keys()].sort((a, b) => a - b);
    for (const [which, name] of [[1, "--p99"], [0, "--p50"]]) {
      pen.strokeStyle = colour(name);
      pen.lineWidth = 1.75;
      pen.lineJoin = "round";
      let run = [];
      for (const at of seconds) {
        // A gap in time is a gap in the line.
        if (run.length && at - run.last > 2) { stroke(pen, run); run = []; }
        run.push([x(at), y(this.points.get(at)[which] ?? 0)]);
        run.last = at;
      }
      stroke(pen, run);
    }
    if (this.deadline) {
      pen.strokeStyle = colour("--soft");
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      line(pen, [[LEFT, y(this.deadline)], [width - RIGHT, y(this.deadline)]]);
      pen.setLineDash([]);
    }
  }
}

function stroke(pen, points) {
  if (points.length === 1) points.push([points[0][0] + 1.5, points[0][1]]);
  line(pen, points);
}

function line(pen, points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}

function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * unit).find((step) => step >= value);
}

function number(value) { return value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1); }
