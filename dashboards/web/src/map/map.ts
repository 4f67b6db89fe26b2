/** The map: MapLibre GL drawing our own GeoJSON. Nothing is asked of any other host, and no font files are needed. */
import { Map as MapLibre, setWorkerUrl, type GeoJSONSource, type LngLatBoundsLike, type MapGeoJSONFeature, type StyleSpecification } from "maplibre-gl";
import "maplibre-gl/dist/maplibre-gl.css";
import workerUrl from "maplibre-gl/dist/maplibre-gl-worker.mjs?worker&url";
import type { FeatureCollection, Position } from "geojson";
import type { ZoneShapes } from "../contract";
import type { Theme } from "../scales";
import { MARKS, type MarkName, RATIO, clusterImage, markImage } from "./icons";
import { type Label, Labels, anchor } from "./labels";
import { PALETTES, type Palette } from "./palette";

setWorkerUrl(workerUrl);

export interface Hit {
  kind: "zone" | "device";
  id: string;
  x: number;
  y: number;
}

export interface DevicePoint {
  id: string;
  lon: number;
  lat: number;
  mark: MarkName;
}

export interface ZonePaint {
  colour: string;
  alarm: string | null; // the colour of its alert, where one is open
  name: string;
  value: string;
  rank: number;
  labelled: boolean;
}

interface Events {
  hover: (hit: Hit | null) => void;
  choose: (hit: Hit | null) => void;
  rendered: (zones: Set<string>) => void;
}

const EMPTY: FeatureCollection = { type: "FeatureCollection", features: [] };
const CLUSTER_FROM = 1500; // devices; fewer are drawn one by one
const ZONE_LAYERS = ["zone-fill", "zone-line"];
const HIT_PX = 4;
const IMAGES_MAX = 500;

const kindIs = (kind: string) => ["==", ["get", "kind"], kind] as ["==", unknown, string];

/** Say how each layer looks in a theme. */
function paints(palette: Palette): Record<string, Record<string, unknown>> {
  const colour = ["to-color", ["feature-state", "colour"], "rgba(128,128,128,0.25)"];
  const lifted = ["case", ["boolean", ["feature-state", "hover"], false], Math.min(1, palette.fill + 0.16), palette.fill];
  const byZoom = (low: number, high: number) => ["interpolate", ["exponential", 1.5], ["zoom"], 10, low, 15, high];
  return {
    land: { "background-color": palette.land },
    park: { "fill-color": palette.park },
    water: { "fill-color": palette.water },
    "water-line": { "line-color": palette.water, "line-width": byZoom(1.5, 8) },
    street: { "line-color": palette.street, "line-width": byZoom(0.6, 5) },
    railway: { "line-color": palette.outline, "line-width": byZoom(1, 3), "line-dasharray": [4, 2] },
    "zone-fill": { "fill-color": colour, "fill-opacity": lifted },
    "context-road": { "line-color": palette.road, "line-width": byZoom(1.2, 6) },
    "context-outline": { "line-color": palette.outline, "line-width": 1, "line-dasharray": [3, 2] },
    "zone-edge": { "line-color": palette.land, "line-width": 1.5 },
    "zone-casing": { "line-color": palette.casing, "line-width": byZoom(5, 17) },
    "zone-line": { "line-color": colour, "line-width": byZoom(3, 12) },
    "selected-device": {
      "circle-radius": 8,
      "circle-color": "transparent",
      "circle-stroke-width": 2,
      "circle-stroke-color": palette.selected,
    },
    alarm: {
      "line-color": ["to-color", ["feature-state", "alarm"], "rgba(0,0,0,0)"],
      "line-width": ["case", ["to-boolean", ["feature-state", "alarm"]], 2.5, 0],
      "line-offset": 2,
    },
    "alarm-road": {
      "line-color": ["to-color", ["feature-state", "alarm"], "rgba(0,0,0,0)"],
      "line-width": ["case", ["to-boolean", ["feature-state", "alarm"]], 2, 0],
      "line-gap-width": byZoom(5, 16),
    },
    selected: {
      "line-color": palette.selected,
      "line-width": ["case", ["boolean", ["feature-state", "selected"], false], 2.5, 0],
      "line-gap-width": 0,
    },
    "selected-road": {
      "line-color": palette.selected,
      "line-width": ["case", ["boolean", ["feature-state", "selected"], false], 2, 0],
      "line-gap-width": byZoom(4, 14),
    },
  };
}

function style(theme: Theme): StyleSpecification {
  const look = paints(PALETTES[theme]);
  const layer = (id: string, type: string, source: string, extra: object = {}) => ({ id, type, source, paint: look[id] ?? {}, ...extra });
  const round = { layout: { "line-cap": "round", "line-join": "round" } };
  const zoneShape = { filter: kindIs("none") };
  const layers = [
    { id: "land", type: "background", paint: look.land },
    layer("park", "fill", "base", { filter: ["all", kindIs("park"), ["==", ["geometry-type"], "Polygon"]] }),
    layer("water", "fill", "base", { filter: ["all", kindIs("water"), ["==", ["geometry-type"], "Polygon"]] }),
    layer("water-line", "line", "base", { filter: ["all", kindIs("water"), ["==", ["geometry-type"], "LineString"]], ...round }),
    layer("street", "line", "base", { filter: kindIs("street"), ...round }),
    layer("railway", "line", "base", { filter: kindIs("railway") }),
    layer("zone-fill", "fill", "zones", zoneShape),
    layer("context-road", "line", "zones", { filter: kindIs("road"), ...round }),
    layer("context-outline", "line", "zones", { filter: kindIs("district") }),
    layer("zone-edge", "line", "zones", zoneShape),
    layer("zone-casing", "line", "zones", { ...zoneShape, ...round }),
    layer("zone-line", "line", "zones", { ...zoneShape, ...round }),
    layer("alarm", "line", "zones", { ...zoneShape, layout: { "line-join": "round" } }),
    layer("alarm-road", "line", "zones", { ...zoneShape, ...round }),
    layer("selected", "line", "zones", { ...zoneShape, layout: { "line-join": "round" } }),
    layer("selected-road", "line", "zones", { ...zoneShape, ...round }),
    layer("selected-device", "circle", "devices", { filter: ["==", ["get", "id"], ""] }),
    {
      id: "devices",
      type: "symbol",
      source: "devices",
      filter: ["!", ["has", "point_count"]],
      layout: {
        "icon-image": ["get", "mark"],
        "icon-allow-overlap": true,
        "icon-ignore-placement": true,
        "symbol-sort-key": ["get", "order"],
        "icon-size": ["interpolate", ["linear"], ["zoom"], 10, 0.75, 13, 1, 16, 1.5],
      },
    },
    {
      id: "clusters",
      type: "symbol",
      source: "devices",
      filter: ["has", "point_count"],
      layout: {
        "icon-image": ["concat", "cluster-", ["get", "point_count"], "-", ["get", "alarming"]],
        "icon-allow-overlap": true,
      },
    },
  ];
  return {
    version: 8,
    sources: {
      base: { type: "geojson", data: EMPTY },
      zones: { type: "geojson", data: EMPTY, promoteId: "id", tolerance: 0.2 },
      devices: { type: "geojson", data: EMPTY, clusterProperties: { alarming: ["+", ["get", "alarm"]] } },
    },
    layers,
  } as unknown as StyleSpecification;
}

function bounds(shapes: FeatureCollection): LngLatBoundsLike | null {
  const box = [Infinity, Infinity, -Infinity, -Infinity] as [number, number, number, number];
  const visit = (item: unknown): void => {
    if (!Array.isArray(item)) return;
    if (typeof item[0] !== "number") return item.forEach(visit);
    const [x = 0, y = 0] = item as Position;
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  };
  for (const feature of shapes.features) if ("coordinates" in feature.geometry) visit(feature.geometry.coordinates);
  return Number.isFinite(box[0]) ? box : null;
}

const ORDER: Record<MarkName, number> = { live: 0, never: 1, flagged: 2, late: 3, silent: 4 };
const ALARMING: ReadonlySet<MarkName> = new Set(["late", "silent", "flagged"]);

export class CityMap {
  readonly #map: MapLibre;
  readonly #labels: Labels;
  readonly #anchors = new Map<string, [number, number]>();
  #theme: Theme;
  #bounds: LngLatBoundsLike | null = null;
  #painted = new Map<string, ZonePaint>();
  #hovered: string | null = null;
  #selected: string | null = null;
  #clustered = false;

  static async open(container: HTMLElement, theme: Theme, events: Events): Promise<CityMap> {
    const map = new MapLibre({
      container,
      style: style(theme),
      center: [76.93, 43.25],
      zoom: 11,
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxPitch: 0,
      fadeDuration: 0,
      renderWorldCopies: false,
    });
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    await new Promise<void>((done) => map.once("load", () => done()));
    return new CityMap(map, theme, events);
  }

  private constructor(map: MapLibre, theme: Theme, events: Events) {
    this.#map = map;
    this.#theme = theme;
    this.#labels = new Labels(map);
    this.#icons();
    map.setMissingStyleImageResolver((id) => this.#cluster(id));
    map.on("mousemove", (event) => this.#hover(this.#hit(event.point), events));
    map.on("mouseout", () => this.#hover(null, events));
    map.on("movestart", () => this.#hover(null, events));
    map.on("click", (event) => this.#click(event.point, events));
    map.on("idle", () => events.rendered(this.#drawn()));
  }

  close(): void {
    this.#map.remove();
  }

  setBase(base: FeatureCollection): void {
    this.#source("base").setData(base);
  }

  setZones(shapes: ZoneShapes): void {
    this.#source("zones").setData(shapes);
    for (const feature of shapes.features) {
      const at = anchor(feature.geometry);
      if (at) this.#anchors.set(feature.properties.id, at);
    }
    const city = shapes.features.filter((feature) => feature.properties.kind === "district");
    this.#bounds = bounds(city.length ? { ...shapes, features: city } : shapes); // roads may lead far out of it
    this.fit(0);
  }

  /** Show the zones of a kind; the others stay as context. */
  setKind(kind: string): void {
    const lines = kind === "road";
    for (const id of ["zone-casing", "zone-line", "alarm-road", "selected-road"]) this.#filter(id, kindIs(lines ? kind : "none"));
    for (const id of ["zone-fill", "zone-edge", "alarm", "selected"]) this.#filter(id, kindIs(lines ? "none" : kind));
    this.#filter("context-road", kindIs(lines ? "none" : "road"));
    this.#filter("context-outline", kindIs(kind === "district" ? "none" : "district"));
  }

  setValues(zones: ReadonlyMap<string, ZonePaint>): void {
    for (const id of this.#painted.keys()) {
      if (!zones.has(id)) this.#map.setFeatureState({ source: "zones", id }, { colour: null, alarm: null });
    }
    for (const [id, { colour, alarm }] of zones) {
      const before = this.#painted.get(id);
      if (before?.colour === colour && before.alarm === alarm) continue;
      this.#map.setFeatureState({ source: "zones", id }, { colour, alarm });
    }
    this.#painted = new Map(zones);
    this.#label();
  }

  setDevices(points: readonly DevicePoint[]): void {
    const clustered = points.length >= CLUSTER_FROM;
    if (clustered !== this.#clustered) this.#recluster(clustered);
    const features = points.map(({ id, lon, lat, mark }) => ({
      type: "Feature" as const,
      geometry: { type: "Point" as const, coordinates: [lon, lat] },
      properties: { id, mark, order: ORDER[mark], alarm: ALARMING.has(mark) ? 1 : 0 },
    }));
    this.#source("devices").setData({ type: "FeatureCollection", features });
  }

  setTheme(theme: Theme): void {
    if (theme === this.#theme) return;
    this.#theme = theme;
    for (const [layer, look] of Object.entries(paints(PALETTES[theme]))) {
      if (!this.#map.getLayer(layer)) continue;
      for (const [name, value] of Object.entries(look)) this.#map.setPaintProperty(layer, name as never, value as never);
    }
    this.#forgetClusters();
    this.#icons();
  }

  select(id: string | null): void {
    if (this.#selected) this.#map.setFeatureState({ source: "zones", id: this.#selected }, { selected: false });
    if (id) this.#map.setFeatureState({ source: "zones", id }, { selected: true });
    this.#selected = id;
    this.#label();
  }

  selectDevice(id: string | null): void {
    this.#filter("selected-device", ["==", ["get", "id"], id ?? ""]);
  }

  /** Bring a place into view where it is not. */
  show(at: [number, number] | null): void {
    if (at && !this.#map.getBounds().contains(at)) this.#map.easeTo({ center: at });
  }

  placeOf(zone: string): [number, number] | null {
    return this.#anchors.get(zone) ?? null;
  }

  fit(duration = 500): void {
    const { clientWidth: width } = this.#map.getContainer();
    if (this.#bounds) this.#map.fitBounds(this.#bounds, { padding: width > 640 ? 22 : 12, duration });
  }

  zoom(by: number): void {
    this.#map.easeTo({ zoom: this.#map.getZoom() + by, duration: 200 });
  }

  #source(id: string): GeoJSONSource {
    return this.#map.getSource(id) as GeoJSONSource;
  }

  #filter(id: string, filter: unknown): void {
    this.#map.setFilter(id, filter as never);
  }

  #icons(): void {
    for (const mark of MARKS) {
      const image = markImage(mark, PALETTES[this.#theme]);
      if (this.#map.hasImage(mark)) this.#map.updateImage(mark, image);
      else this.#map.addImage(mark, image, { pixelRatio: RATIO });
    }
  }

  #forgetClusters(): void {
    for (const id of this.#map.listImages()) if (id.startsWith("cluster-")) this.#map.removeImage(id);
  }

  #cluster(id: string): void {
    const [, count, alarming] = /^cluster-(\d+)-(\d+)$/.exec(id) ?? [];
    if (!count || this.#map.hasImage(id)) return;
    if (this.#map.listImages().length > IMAGES_MAX) this.#forgetClusters();
    this.#map.addImage(id, clusterImage(Number(count), Number(alarming), PALETTES[this.#theme]), { pixelRatio: RATIO });
  }

  #recluster(clustered: boolean): void {
    this.#clustered = clustered;
    this.#source("devices").setClusterOptions({ cluster: clustered, clusterMaxZoom: 13, clusterRadius: 44 });
  }

  #label(): void {
    const labels: Label[] = [];
    for (const [id, zone] of this.#painted) {
      const at = this.#anchors.get(id);
      const selected = id === this.#selected;
      if (!at || !(zone.labelled || selected)) continue;
      labels.push({ id, at, ...zone, selected, rank: selected ? -Infinity : zone.alarm ? -1e9 : zone.rank });
    }
    this.#labels.set(labels);
  }

  #hit(point: { x: number; y: number }): { hit: Hit; feature: MapGeoJSONFeature } | null {
    const near: [[number, number], [number, number]] = [
      [point.x - HIT_PX, point.y - HIT_PX],
      [point.x + HIT_PX, point.y + HIT_PX],
    ];
    const [feature] = this.#map.queryRenderedFeatures(near, { layers: ["clusters", "devices", ...ZONE_LAYERS] });
    if (!feature) return null;
    const kind = feature.source === "devices" ? "device" : "zone";
    return { hit: { kind, id: String(feature.properties.id), x: point.x, y: point.y }, feature };
  }

  #hover(found: { hit: Hit; feature: MapGeoJSONFeature } | null, events: Events): void {
    const cluster = found?.feature.layer.id === "clusters";
    const zone = found?.hit.kind === "zone" ? found.hit.id : null;
    if (zone !== this.#hovered) {
      if (this.#hovered) this.#map.setFeatureState({ source: "zones", id: this.#hovered }, { hover: false });
      if (zone) this.#map.setFeatureState({ source: "zones", id: zone }, { hover: true });
      this.#hovered = zone;
    }
    this.#map.getCanvas().style.cursor = found ? "pointer" : "";
    events.hover(found && !cluster ? found.hit : null);
  }

  #click(point: { x: number; y: number }, events: Events): void {
    const found = this.#hit(point);
    if (found?.feature.layer.id !== "clusters") return events.choose(found?.hit ?? null);
    const [lon = 0, lat = 0] = (found.feature.geometry as { coordinates: Position }).coordinates;
    this.#map.easeTo({ center: [lon, lat], zoom: this.#map.getZoom() + 2 });
  }

  #drawn(): Set<string> {
    return new Set(this.#map.queryRenderedFeatures({ layers: ZONE_LAYERS }).map((feature) => String(feature.properties.id)));
  }
}
