// Charts of what the container uses: one line each, drawn anew at each beat, with the value as text beside it.

const POINTS = 150;
const WIDTH = 150;
const HEIGHT = 36;

/** What is drawn: the sample's keys, how a value is written, and which key holds the limit. */
const CHARTS = [
  { title: "Processors", keys: ["cpu"], names: [""], text: (cpu) => `${Math.round(100 * cpu)} %`, least: 1 },
  { title: "Memory", keys: ["memory"], names: [""], limit: "memory_limit", text: sizeText, least: 64 << 20 },
  { title: "Disk", keys: ["read", "written"], names: ["read", "written"], text: (rate) => `${sizeText(rate)}/s`, least: 1 << 20, used: ["disk", "disk_limit"] },
  { title: "Network", keys: ["received", "sent"], names: ["in", "out"], text: (rate) => `${sizeText(rate)}/s`, least: 64 << 10 },
];

class Charts {
  constructor() {
    this.samples = [];
    this.charts = CHARTS.map((chart) => this.build(chart));
    this.element = make("div", { class: "nbhull-charts" }, ...this.charts.map((chart) => chart.element));
  }

  build(chart) {
    const lines = chart.keys.map((_, number) => make("svg:path", { class: `nbhull-line nbhull-line-${number}`, d: "" }));
    const limit = make("svg:path", { class: "nbhull-limit", d: "" });
    const drawing = make(
      "svg:svg",
      {
        class: "nbhull-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
        role: "img", "aria-label": chart.title,
      },
      limit, ...lines,
    );
    const value = make("span", { class: "nbhull-value" }, "–");
    const element = make(
      "div", { class: "nbhull-meter" },
      make("div", { class: "nbhull-meter-head" }, make("span", { class: "nbhull-meter-title" }, chart.title), value),
      drawing,
    );
    return { ...chart, lines, limitLine: limit, drawing, value, element };
  }

  /** Begin with what the kernel has kept. */
  begin(samples) {
    this.samples = samples.slice(-POINTS);
    this.draw();
  }

  add(sample) {
    this.samples.push(sample);
    this.samples.splice(0, Math.max(0, this.samples.length - POINTS));
    this.draw();
  }

  draw() {
    const last = this.samples[this.samples.length - 1];
    if (!last) return;
    for (const chart of this.charts) {
      const limit = chart.limit ? last[chart.limit] : null;
      const values = chart.keys.map((key) => this.samples.map((sample) => sample[key]));
      const most = Math.max(chart.least, limit || 0, ...values.flat().filter(Number.isFinite));
      values.forEach((series, number) => chart.lines[number].setAttribute("d", path(series, most)));
      const y = limit ? height(limit, most) : 0;
      chart.limitLine.setAttribute("d", limit ? `M 0 ${y} H ${WIDTH}` : "");
      const text = this.text(chart, last, limit);
      if (chart.value.textContent !== text) {
        chart.value.textContent = text;
        chart.drawing.setAttribute("aria-label", `${chart.title}: ${text}`);
      }
    }
  }

  text(chart, last, limit) {
    const known = chart.keys.map((key, number) => [chart.names[number], last[key]]);
    const parts = known
      .filter(([, value]) => Number.isFinite(value))
      .map(([name, value]) => `${name} ${chart.text(value)}`.trim());
    if (limit) parts.push(`of ${chart.text(limit)}`);
    if (chart.used && Number.isFinite(last[chart.used[0]])) {
      const [used, most] = chart.used.map((key) => last[key]);
      parts.unshift(most ? `${sizeText(used)} of ${sizeText(most)},` : `${sizeText(used)},`);
    }
    return parts.join(" ") || "–";
  }
}

function height(value, most) {
  return (HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1);
}

/** A line through values; it stops where there is none. */
function path(series, most) {
  let drawn = "";
  let isOpen = false;
  const first = POINTS - series.length;
  series.forEach((value, index) => {
    if (!Number.isFinite(value)) {
      isOpen = false;
      return;
    }
    const x = (((first + index) * WIDTH) / (POINTS - 1)).toFixed(1);
    drawn += `${isOpen ? "L" : "M"} ${x} ${height(value, most)} `;
    isOpen = true;
  });
  return drawn;
}
