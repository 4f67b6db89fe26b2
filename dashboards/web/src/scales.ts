/** Colour scales: steps with meanings where a norm or practice gives them, even steps over the data elsewhere. */

export type Theme = "dark" | "light";

/** Steps of a scale. A value belongs to the last step whose `from` it reaches; `labels` is a prefix of message keys. */
export interface Scale {
  from: readonly number[]; // rising; from[0] is the lower end
  colours: readonly string[];
  labels: string | null;
  worst: "high" | "low" | null; // which end is bad, where one is
}

// Calm where all is well, bright where it is not; lightness rises with the value in the dark theme and falls in the
// light one, so that the order is legible without the hue.
const SEVERITY: Record<Theme, readonly string[]> = {
  dark: ["#2b6f73", "#6f9a58", "#d9a93f", "#ee7a3c", "#e8425a", "#b44fd0"],
  light: ["#5fb3a5", "#a8c05a", "#e6b23c", "#e27b35", "#cf3b4e", "#8a3aa8"],
};
const BLUES: Record<Theme, readonly string[]> = {
  dark: ["#1d4a66", "#246a8c", "#2f8fb3", "#55b6d0", "#9adbe4"],
  light: ["#b9dcec", "#86c1dd", "#4fa0c8", "#2a7cab", "#155a86"],
};
export const NO_DATA: Record<Theme, string> = { dark: "#3a4450", light: "#c3cbd3" };

const pick = (all: readonly string[], indices: readonly number[]): string[] => indices.map((i) => all[i] ?? "#000");

interface Steps {
  from: readonly number[];
  palette: readonly number[]; // indices into SEVERITY
  labels: string | null;
  worst: "high" | "low";
}

const STEPS: Record<string, Steps> = {
  // US EPA AQI categories, and PM2.5 at their 2024 breakpoints (40 CFR 58, appendix G)
  nowcast_aqi: { from: [0, 51, 101, 151, 201, 301], palette: [0, 1, 2, 3, 4, 5], labels: "aqi", worst: "high" },
  aqi: { from: [0, 51, 101, 151, 201, 301], palette: [0, 1, 2, 3, 4, 5], labels: "aqi", worst: "high" },
  pm2_5_mean: { from: [0, 9.1, 35.5, 55.5, 125.5, 225.5], palette: [0, 1, 2, 3, 4, 5], labels: "aqi", worst: "high" },
  european_aqi: { from: [1, 2, 3, 4, 5, 6], palette: [0, 1, 2, 3, 4, 5], labels: "eaqi", worst: "high" },
  congestion_level: { from: [0, 15, 30, 50, 80], palette: [0, 1, 2, 3, 4], labels: "congestion", worst: "high" },
  travel_time_index: { from: [1, 1.15, 1.3, 1.5, 1.8], palette: [0, 1, 2, 3, 4], labels: "congestion", worst: "high" },
  feeder_load: { from: [0, 40, 70, 85, 100], palette: [0, 1, 2, 3, 4], labels: "load", worst: "high" },
  space_mean_speed: { from: [0, 15, 25, 40, 60], palette: [4, 3, 2, 1, 0], labels: null, worst: "low" },
};

const NICE = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** Round a step up to a number that reads well. */
export function niceStep(step: number): number {
  if (!(step > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(step));
  const mantissa = step / power;
  return (NICE.find((nice) => nice >= mantissa - 1e-9) ?? 10) * power;
}

/** Cut the range of some values into `steps` even, nicely rounded steps. */
export function evenSteps(values: readonly number[], steps: number): number[] {
  const low = Math.min(...values, Infinity);
  const high = Math.max(...values, -Infinity);
  if (!Number.isFinite(low) || !Number.isFinite(high)) return Array.from({ length: steps }, (_, i) => i);
  const base = low >= 0 && low < high / 2 ? 0 : low;
  const step = niceStep((high - base) / steps || Math.abs(high) / steps || 1);
  const start = Math.floor(base / step) * step;
  return Array.from({ length: steps }, (_, i) => Number((start + i * step).toPrecision(12)));
}

/** Give the scale of an indicator: its own steps, or even ones over the values it has now. */
export function scaleOf(indicator: string, values: readonly number[], theme: Theme): Scale {
  const steps = STEPS[indicator];
  if (steps) {
    return { from: steps.from, colours: pick(SEVERITY[theme], steps.palette), labels: steps.labels, worst: steps.worst };
  }
  return { from: evenSteps(values, 5), colours: BLUES[theme], labels: null, worst: null };
}

/** Say which step a value belongs to; what lies below the first belongs to the first. */
export function stepOf(scale: Pick<Scale, "from">, value: number): number {
  let step = 0;
  scale.from.forEach((from, i) => {
    if (value >= from) step = i;
  });
  return step;
}

export function colourOf(scale: Scale, value: number | null, theme: Theme): string {
  return value === null ? NO_DATA[theme] : (scale.colours[stepOf(scale, value)] ?? NO_DATA[theme]);
}
