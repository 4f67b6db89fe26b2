/** Names and values of zones as HTML above the map (MapLibre's own text would need font files), kept from overlapping. */
import type { Map as MapLibre } from "maplibre-gl";
import type { Geometry, Position } from "geojson";

export interface Label {
  id: string;
  at: [number, number];
  name: string;
  value: string;
  colour: string;
  alarm: string | null;
  rank: number; // the lowest is placed first
  selected: boolean;
}

function ringCentre(ring: Position[]): { at: [number, number]; area: number } {
  let [x, y, area] = [0, 0, 0];
  for (let i = 0; i + 1 < ring.length; i += 1) {
    const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = []] = [ring[i], ring[i + 1]];
    const cross = x0 * y1 - x1 * y0;
    area += cross;
    x += (x0 + x1) * cross;
    y += (y0 + y1) * cross;
  }
  const [fx = 0, fy = 0] = ring[0] ?? [];
  return area ? { at: [x / (3 * area), y / (3 * area)], area: Math.abs(area) } : { at: [fx, fy], area: 0 };
}

function halfway(line: Position[]): [number, number] {
  const lengths = line.slice(1).map((p, i) => Math.hypot((p[0] ?? 0) - (line[i]?.[0] ?? 0), (p[1] ?? 0) - (line[i]?.[1] ?? 0)));
  let left = lengths.reduce((sum, length) => sum + length, 0) / 2;
  for (const [i, length] of lengths.entries()) {
    const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = []] = [line[i], line[i + 1]];
    if (length >= left) return [x0 + ((x1 - x0) * left) / (length || 1), y0 + ((y1 - y0) * left) / (length || 1)];
    left -= length;
  }
  return [line[0]?.[0] ?? 0, line[0]?.[1] ?? 0];
}

/** Find where a zone's label stands: the centre of its largest ring, or half-way along its longest line. */
export function anchor(geometry: Geometry): [number, number] | null {
  if (geometry.type === "Polygon") return ringCentre(geometry.coordinates[0] ?? []).at;
  if (geometry.type === "MultiPolygon") {
    const centres = geometry.coordinates.map((polygon) => ringCentre(polygon[0] ?? []));
    return centres.sort((a, b) => b.area - a.area)[0]?.at ?? null;
  }
  if (geometry.type === "LineString") return halfway(geometry.coordinates);
  if (geometry.type === "MultiLineString") {
    const longest = [...geometry.coordinates].sort((a, b) => b.length - a.length)[0];
    return longest ? halfway(longest) : null;
  }
  if (geometry.type === "Point") return [geometry.coordinates[0] ?? 0, geometry.coordinates[1] ?? 0];
  return null;
}

interface Size {
  width: number;
  height: number;
}

interface Placed {
  label: Label;
  node: HTMLElement;
  full: Size;
  short: Size; // the value alone
  compact: boolean;
}

interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

const apart = (a: Box, b: Box): boolean => Math.abs(a.x - b.x) >= a.w + b.w || Math.abs(a.y - b.y) >= a.h + b.h;
const sizeOf = (node: HTMLElement): Size => ({ width: node.offsetWidth, height: node.offsetHeight });

const GAP_PX = 3;

export class Labels {
  readonly #map: MapLibre;
  readonly #layer: HTMLElement;
  #placed: Placed[] = [];

  constructor(map: MapLibre) {
    this.#map = map;
    this.#layer = document.createElement("div");
    this.#layer.className = "zone-labels";
    this.#layer.setAttribute("aria-hidden", "true"); // the table says the same, in order
    map.getContainer().append(this.#layer);
    map.on("move", () => this.#move());
    map.on("moveend", () => this.#thin());
    map.on("resize", () => this.#thin());
  }

  set(labels: readonly Label[]): void {
    const nodes = labels.map((label) => this.#node(label));
    this.#layer.replaceChildren(...nodes);
    this.#placed = nodes.map((node, i) => ({
      label: labels[i] as Label,
      node,
      full: sizeOf(node),
      short: sizeOf(node.lastElementChild as HTMLElement),
      compact: false,
    }));
    this.#thin();
  }

  #node(label: Label): HTMLElement {
    const node = document.createElement("div");
    node.className = `zone-label ${label.selected ? "selected" : ""} ${label.alarm ? "alarm" : ""}`;
    if (label.alarm) node.style.setProperty("--alarm", label.alarm);
    const name = document.createElement("span");
    name.className = "zone-label-name";
    name.textContent = label.name;
    const value = document.createElement("span");
    value.className = "zone-label-value";
    value.textContent = label.value;
    value.style.setProperty("--zone", label.colour);
    node.append(name, value);
    return node;
  }

  #at(item: Placed): { x: number; y: number } {
    return this.#map.project(item.label.at);
  }

  #move(): void {
    for (const item of this.#placed) {
      const { x, y } = this.#at(item);
      const { width, height } = item.compact ? item.short : item.full;
      item.node.style.transform = `translate(${Math.round(x - width / 2)}px, ${Math.round(y - height / 2)}px)`;
    }
  }

  /** Shorten the labels that would lie on one that matters more to their value, or hide them. */
  #thin(): void {
    const taken: Box[] = [];
    for (const item of [...this.#placed].sort((a, b) => a.label.rank - b.label.rank)) {
      const boxes = [item.full, item.short].map((size) => this.#box(item, size));
      const fits = boxes.findIndex((box) => taken.every((other) => apart(box, other)));
      item.compact = fits === 1;
      item.node.classList.toggle("compact", item.compact);
      item.node.style.visibility = fits < 0 ? "hidden" : "visible";
      const box = boxes[fits];
      if (box) taken.push(box);
    }
    this.#move();
  }

  #box(item: Placed, { width, height }: Size): Box {
    return { ...this.#at(item), w: width / 2 + GAP_PX, h: height / 2 + GAP_PX };
  }
}
