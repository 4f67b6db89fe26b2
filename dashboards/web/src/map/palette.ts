/** The map's own colours by theme: a quiet ground, so that only the data speak. */
import type { Theme } from "../scales";

export interface Palette {
  land: string;
  water: string;
  park: string;
  outline: string;
  street: string;
  road: string;
  casing: string;
  selected: string;
  text: string;
  live: string;
  late: string;
  silent: string;
  never: string;
  flagged: string;
  cluster: string;
  fill: number; // opacity of zones
}

export const PALETTES: Record<Theme, Palette> = {
  dark: {
    land: "#10161c",
    water: "#122c3a",
    park: "#14241f",
    outline: "#2c3843",
    street: "#1a222a",
    road: "#2a343e",
    casing: "#0b1015",
    selected: "#ffffff",
    text: "#e8eef3",
    live: "#b6c6d1",
    late: "#f0b440",
    silent: "#ff5d6c",
    never: "#75828e",
    flagged: "#d58bf0",
    cluster: "#2a3742",
    fill: 0.62,
  },
  light: {
    land: "#eef1f3",
    water: "#c6dfea",
    park: "#d7e6d3",
    outline: "#b6c0c9",
    street: "#f9fafb",
    road: "#ffffff",
    casing: "#ccd4da",
    selected: "#0d1b24",
    text: "#16222b",
    live: "#43535f",
    late: "#b26b00",
    silent: "#c2182f",
    never: "#87939d",
    flagged: "#8a2fb0",
    cluster: "#ffffff",
    fill: 0.66,
  },
};
