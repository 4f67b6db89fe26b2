/** Draws rows with uPlot: a band from min to max, the mean, a strip of coverage, limits, and what is provisional. */
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Lang } from "../i18n";
import { cityTime, day, hourMinute, number } from "../format";
import { type Row, rowAt } from "./data";

export interface Limit {
  value: number;
  text: string;
}

export interface Drawing {
  rows: readonly Row[];
  from: number; // Unix seconds
  to: number;
  limits: readonly Limit[];
  least: number; // coverage below it is low
  provisionalFrom: number | null;
  stepped: boolean;
  lang: Lang;
  zone: string; // time zone
}

const STRIP_PX = 3;
const LIMIT_REACH = 1.6; // a limit further away than this many times the data is not worth flattening them for
const FONT = "11px system-ui, sans-serif";

function colours(node: Element): (name: string) => string {
  const css = getComputedStyle(node);
  return (name) => css.getPropertyValue(`--${name}`).trim();
}

type Columns = [number[], (number | null)[], (number | null)[], (number | null)[]];

function columns({ rows, stepped }: Drawing): Columns {
  const points = rows.map((row): [number, Row] => [stepped ? row.start : (row.start + row.stop) / 2, row]);
  const last = rows.at(-1);
  if (stepped && last) points.push([last.stop, last]);
  return [points.map(([x]) => x), points.map(([, row]) => row.max), points.map(([, row]) => row.min), points.map(([, row]) => row.mean)];
}

function times(drawing: Drawing, splits: number[]): string[] {
  return splits.map((split) => {
    const at = cityTime(split * 1000, drawing.zone);
    return at.hour === 0 && at.minute === 0 ? day(drawing.lang, split * 1000, drawing.zone) : hourMinute(split * 1000, drawing.zone);
  });
}

function reach(drawing: Drawing, low: number, high: number): [number, number] {
  const limits = drawing.limits.map((limit) => limit.value).filter((value) => value <= high * LIMIT_REACH && value >= low / LIMIT_REACH);
  const top = Math.max(high, ...limits);
  const bottom = Math.min(low, ...limits);
  const floor = bottom >= 0 && bottom < top * 0.6 ? 0 : bottom - (top - bottom || Math.abs(top) || 1) * 0.12;
  return [floor, top + (top - floor || 1) * 0.1];
}

export class Plot {
  readonly #node: HTMLElement;
  readonly #onCursor: (row: Row | null) => void;
  readonly #resize: ResizeObserver;
  #plot: uPlot | null = null;
  #drawing: Drawing;

  constructor(node: HTMLElement, drawing: Drawing, onCursor: (row: Row | null) => void) {
    this.#node = node;
    this.#drawing = drawing;
    this.#onCursor = onCursor;
    this.#make();
    this.#resize = new ResizeObserver(() => this.#plot?.setSize(this.#size()));
    this.#resize.observe(node);
  }

  /** Draw anew: other data, another theme or language. */
  draw(drawing: Drawing, restyle: boolean): void {
    this.#drawing = drawing;
    if (restyle) return this.#make();
    this.#plot?.batch(() => {
      this.#plot?.setData(columns(drawing), false);
      this.#plot?.setScale("x", { min: drawing.from, max: drawing.to });
    });
  }

  close(): void {
    this.#resize.disconnect();
    this.#plot?.destroy();
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(80, this.#node.clientWidth), height: Math.max(60, this.#node.clientHeight) };
  }

  #make(): void {
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), columns(this.#drawing), this.#node);
  }

  #options(): uPlot.Options {
    const colour = colours(this.#node);
    const paths = this.#drawing.stepped && uPlot.paths.stepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {};
    const axis = { stroke: colour("dim"), font: FONT, grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false } };
    return {
      ...this.#size(),
      legend: { show: false },
      tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1000), this.#drawing.zone),
      padding: [10, 14, 0, 0],
      scales: {
        x: { time: true, range: () => [this.#drawing.from, this.#drawing.to] },
        y: { range: (_, low, high) => (low === null ? [0, 1] : reach(this.#drawing, low, high)) },
      },
      axes: [
        { ...axis, size: 28, gap: 9, space: 64, values: (_, splits) => times(this.#drawing, splits) },
        { ...axis, size: 52, gap: 6, space: 34, values: (_, splits, __, ___, step) => this.#numbers(splits, step) },
      ],
      series: [
        {},
        { ...paths, stroke: "transparent", points: { show: false } },
        { ...paths, stroke: "transparent", points: { show: false } },
        { ...paths, stroke: colour("accent"), width: 1.75, points: { show: (plot) => this.#lonely(plot) } },
      ],
      bands: [{ series: [1, 2], fill: colour("band") }],
      cursor: {
        y: false,
        drag: { x: false, y: false },
        points: { size: 7, show: true, fill: colour("accent"), stroke: colour("surface") },
      },
      hooks: {
        drawClear: [(plot) => this.#shade(plot, colour("shade"))],
        draw: [(plot) => this.#strip(plot, colour), (plot) => this.#limits(plot, colour("limit"))],
        setCursor: [(plot) => this.#cursor(plot)],
      },
    };
  }

  #numbers(splits: number[], step: number): string[] {
    const digits = step >= 1 ? 0 : Math.min(4, Math.ceil(-Math.log10(step)));
    return splits.map((split) => number(this.#drawing.lang, split, digits));
  }

  /** Few points are shown as points: a line needs two neighbours. */
  #lonely(plot: uPlot): boolean {
    return (plot.data[3] ?? []).filter((value) => value !== null).length < 3;
  }

  #cursor(plot: uPlot): void {
    const left = plot.cursor.left ?? -1;
    this.#onCursor(left < 0 ? null : rowAt(this.#drawing.rows, plot.posToVal(left, "x")));
  }

  #shade(plot: uPlot, colour: string): void {
    const from = this.#drawing.provisionalFrom;
    if (from === null) return;
    const { ctx, bbox } = plot;
    const x = Math.max(bbox.left, plot.valToPos(from, "x", true));
    const right = bbox.left + bbox.width;
    if (x >= right) return;
    ctx.save();
    ctx.fillStyle = colour;
    ctx.fillRect(x, bbox.top, right - x, bbox.height);
    ctx.restore();
  }

  #strip(plot: uPlot, colour: (name: string) => string): void {
    const { ctx, bbox } = plot;
    const [height, top] = [STRIP_PX * devicePixelRatio, bbox.top + bbox.height + devicePixelRatio];
    const [good, low] = [colour("strip"), colour("warn")];
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, top, bbox.width, height);
    ctx.clip();
    for (const row of this.#drawing.rows) {
      if (!row.coverage) continue;
      const [x, stop] = [plot.valToPos(row.start, "x", true), plot.valToPos(row.stop, "x", true)];
      ctx.fillStyle = row.coverage < this.#drawing.least ? low : good;
      ctx.fillRect(x, top, Math.max(1, stop - x), height);
    }
    ctx.restore();
  }

  #limits(plot: uPlot, colour: string): void {
    const { ctx, bbox } = plot;
    for (const limit of this.#drawing.limits) {
      const y = plot.valToPos(limit.value, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.save();
      ctx.strokeStyle = colour;
      ctx.fillStyle = colour;
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      ctx.fillText(limit.text, bbox.left + 6 * devicePixelRatio, y - 3 * devicePixelRatio);
      ctx.restore();
    }
  }
}
