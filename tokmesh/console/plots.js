// The plots: what each shows, and drawing it with uPlot. Colours come from the style sheet, so that they follow the
// colour scheme; a plot is drawn anew when that changes.

import * as format from "./format.js";

const WINDOW_SECONDS = 300;
const WINDOW_SECONDS_MIN = 60;
const HEIGHT = 150;
const FONT = '11px -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif';

const perSecond = (value) => `${format.number(value)}/s`;

// series: [label, field of a point]. floor: the least the upper end of the scale is. orders: a logarithmic scale, for
// what spans orders of magnitude.
const PLOTS = [
  { title: "Requests", show: perSecond, floor: 5, series: [["answered", "requests"], ["5xx", "errors"]] },
  { title: "Latency, all routes", show: format.seconds, floor: 0.001, orders: true, series: [["P50", "p50"], ["P99", "p99"], ["P99.9", "p999"]] },
  { title: "Validations", show: perSecond, floor: 5, series: [["valid", "valid"], ["invalid", "invalid"], ["no answer", "unanswered"]] },
  { title: "Active sessions", show: format.integer, floor: 10, series: [["active", "sessions"]] },
  { title: "Sync of the log", show: format.seconds, floor: 0.001, orders: true, series: [["P99", "sync"]] },
  { title: "CPU and memory", show: format.percent, floor: 0.1, series: [["CPU", "cpu"], ["memory", "memory"]] },
];

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(plot, width) {
  const axis = { stroke: style("--soft"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false }, font: FONT };
  return {
    width,
    height: HEIGHT,
    padding: [8, 14, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: (chart, low, high) => [high - Math.max(WINDOW_SECONDS_MIN, Math.min(WINDOW_SECONDS, high - low)), high] },
      y: plot.orders
        ? { distr: 3, range: (chart, low, high) => orders(low ?? plot.floor, high ?? plot.floor) }
        : { range: (chart, low, high) => [0, Math.max(plot.floor, (high ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, size: 24, splits: (chart, index, low, high) => ages(high - low).map((age) => high - age), values: (chart, times) => times.map((time) => ago(times.at(-1) - time)) },
      { ...axis, size: 62, space: 36, ...(plot.orders ? { splits: (chart, index, low, high) => powers(low, high) } : {}), values: (chart, values) => values.map((value) => (value === null ? "" : plot.show(value))) },
    ],
    series: [
      {},
      ...plot.series.map(([label], index) => ({
        label,
        stroke: style(`--series-${index + 1}`),
        width: 1.75,
        points: { show: false },
        fill: plot.series.length === 1 ? `${style("--series-1")}22` : undefined,
      })),
    ],
  };
}

// Whole powers of ten around what there is to show.
function orders(low, high) {
  const bottom = Math.floor(Math.log10(low));
  return [10 ** bottom, 10 ** Math.max(bottom + 1, Math.ceil(Math.log10(high)))];
}

function powers(low, high) {
  const first = Math.round(Math.log10(low));
  return Array.from({ length: Math.round(Math.log10(high)) - first + 1 }, (_, index) => 10 ** (first + index));
}

// Where the time axis has its marks, oldest first: five at most, apart by what can be read at a glance.
function ages(span) {
  const step = [15, 30, 60].find((each) => span / each <= 5) ?? 60;
  return Array.from({ length: Math.floor(span / step + 0.01) + 1 }, (_, index) => index * step).reverse();
}

function ago(age) {
  if (age < 1) return "now";
  return Math.round(age) % 60 ? `−${Math.round(age)} s` : `−${Math.round(age / 60)} min`;
}

class Plot {
  constructor(plot, home) {
    this.plot = plot;
    this.figure = document.createElement("figure");
    this.figure.className = "plot";
    this.figure.setAttribute("role", "img");
    const title = document.createElement("h2");
    title.textContent = plot.title;
    const keys = document.createElement("p");
    keys.className = "keys";
    this.values = plot.series.map(([label], index) => {
      const key = document.createElement("span");
      const mark = document.createElement("i");
      const value = document.createElement("b");
      key.className = "key";
      mark.className = `series-${index + 1}`;
      key.append(mark, label, value);
      keys.append(key);
      return value;
    });
    this.canvas = document.createElement("div");
    this.canvas.className = "canvas";
    this.figure.append(title, keys, this.canvas);
    home.append(this.figure);
    this.data = [[], ...plot.series.map(() => [])];
  }

  tell(point) {
    const words = this.plot.series.map(([label, field], index) => {
      const shown = this.plot.show(point[field]);
      this.values[index].textContent = shown;
      return `${label} ${shown}`;
    });
    this.figure.setAttribute("aria-label", `${this.plot.title}: ${words.join(", ")}`);
  }

  draw(points) {
    this.data = [points.map((each) => each.at), ...this.plot.series.map(([, field]) => points.map((each) => each[field] ?? null))];
    if (this.chart) this.chart.setData(this.data);
    else this.begin();
  }

  begin() {
    this.chart?.destroy();
    this.chart = new window.uPlot(options(this.plot, this.canvas.clientWidth), this.data, this.canvas);
  }

  resize() {
    if (this.chart && this.canvas.clientWidth > 0) this.chart.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
  }
}

// All plots in an element of the page.
export class Plots {
  constructor(home) {
    this.plots = PLOTS.map((plot) => new Plot(plot, home));
    new ResizeObserver(() => this.plots.forEach((each) => each.resize())).observe(home);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.plots.filter((each) => each.chart).forEach((each) => each.begin());
    });
  }

  tell(point) {
    this.plots.forEach((each) => each.tell(point));
  }

  draw(points) {
    this.plots.forEach((each) => each.draw(points));
  }
}
