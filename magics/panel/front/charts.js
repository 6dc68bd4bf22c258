// Charts of what the container uses: a line or two each, drawn anew at each beat, with the values as text beside them.

const POINTS = 150;
const WIDTH = 150;
const HEIGHT = 36;

/** What is drawn: the sample's keys, which key holds the limit, and the least that the whole height stands for; `head`
 *  gives the value in large letters, `foot` what stands below: texts, each with the number of the line it explains. */
const CHARTS = [
  {
    title: "Processors", keys: ["cpu"], least: 1,
    head: (sample) => percentText(sample.cpu),
    foot: (sample) => [[countText(sample.pids, "process", "processes"), null]],
  },
  {
    title: "Memory", keys: ["memory"], limit: "memory_limit", least: 64 << 20,
    head: (sample) => sizeText(sample.memory),
    foot: (sample) => [[sample.memory_limit ? `of ${sizeText(sample.memory_limit)}` : "no limit", null]],
  },
  {
    title: "Disk", keys: ["read", "written"], least: 1 << 20,
    head: (sample) => sizeText(sample.disk) + (sample.disk_limit ? ` of ${sizeText(sample.disk_limit)}` : ""),
    foot: (sample) => [[`read ${rateText(sample.read)}`, 0], [`written ${rateText(sample.written)}`, 1]],
  },
  {
    title: "Network", keys: ["received", "sent"], least: 64 << 10,
    head: (sample) => rateText(total(sample.received, sample.sent)),
    foot: (sample) => [[`in ${rateText(sample.received)}`, 0], [`out ${rateText(sample.sent)}`, 1]],
  },
];

class Charts {
  constructor() {
    this.samples = [];
    this.charts = CHARTS.map((chart) => this.build(chart));
    this.element = make("div", { class: "nbhull-charts" }, ...this.charts.map((chart) => chart.element));
  }

  build(chart) {
    const lines = chart.keys.map((_, number) => make("svg:path", { class: `nbhull-line nbhull-line-${number}`, d: "" }));
    const area = make("svg:path", { class: "nbhull-area", d: "" });
    const limit = make("svg:path", { class: "nbhull-limit", d: "" });
    const drawing = make(
      "svg:svg",
      {
        class: "nbhull-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
        role: "img", "aria-label": chart.title,
      },
      area, limit, ...lines,
    );
    const value = make("span", { class: "nbhull-value" }, "–");
    const parts = chart.foot({}).map(([, line]) => make("span", { class: line === null ? null : `nbhull-key nbhull-key-${line}` }));
    const element = make(
      "div", { class: "nbhull-meter" },
      make("div", { class: "nbhull-meter-head" }, make("span", { class: "nbhull-meter-title" }, chart.title), value),
      drawing,
      make("div", { class: "nbhull-meter-foot" }, ...parts),
    );
    return { ...chart, lines, area, limitLine: limit, drawing, value, parts, element };
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
      chart.area.setAttribute("d", area(values[0], most));
      const y = limit ? height(limit, most) : 0;
      chart.limitLine.setAttribute("d", limit ? `M 0 ${y} H ${WIDTH}` : "");
      this.write(chart, last);
    }
  }

  write(chart, sample) {
    const head = chart.head(sample);
    const foot = chart.foot(sample);
    putText(chart.value, head);
    foot.forEach(([text], number) => putText(chart.parts[number], text));
    const label = `${chart.title}: ${[head, ...foot.map(([text]) => text)].filter(Boolean).join(", ")}`;
    if (chart.drawing.getAttribute("aria-label") !== label) chart.drawing.setAttribute("aria-label", label);
  }
}

function percentText(part) {
  return Number.isFinite(part) ? `${Math.round(100 * part)} %` : "–";
}

function rateText(rate) {
  return Number.isFinite(rate) ? `${sizeText(rate)}/s` : "–";
}

function countText(count, one, many) {
  return Number.isFinite(count) ? `${count} ${count === 1 ? one : many}` : "";
}

function total(...amounts) {
  const known = amounts.filter(Number.isFinite);
  return known.length ? known.reduce((sum, amount) => sum + amount, 0) : null;
}

function height(value, most) {
  return (HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1);
}

/** The parts of a series without a gap, as points of the drawing. */
function stretches(series, most) {
  const first = POINTS - series.length;
  const found = [[]];
  series.forEach((value, index) => {
    if (!Number.isFinite(value)) {
      if (found[found.length - 1].length) found.push([]);
      return;
    }
    found[found.length - 1].push(`${(((first + index) * WIDTH) / (POINTS - 1)).toFixed(1)} ${height(value, most)}`);
  });
  return found.filter((points) => points.length);
}

/** A line through values; it stops where there is none. */
function path(series, most) {
  return stretches(series, most).map((points) => `M ${points.join(" L ")}`).join(" ");
}

/** What lies below that line. */
function area(series, most) {
  const foot = (point) => `${point.split(" ")[0]} ${HEIGHT}`;
  return stretches(series, most)
    .map((points) => `M ${foot(points[0])} L ${points.join(" L ")} L ${foot(points[points.length - 1])} Z`)
    .join(" ");
}
