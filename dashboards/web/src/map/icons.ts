/** Draws the map's point symbols: state shows in shape and size, not in colour alone. */
import type { Palette } from "./palette";

export const MARKS = ["live", "late", "silent", "never", "flagged"] as const;
export type MarkName = (typeof MARKS)[number];
const RATIO = 2;

type Draw = (context: CanvasRenderingContext2D, centre: number) => void;

function image(size: number, draw: Draw): ImageData {
  const canvas = document.createElement("canvas");
  canvas.width = size * RATIO;
  canvas.height = size * RATIO;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return new ImageData(1, 1);
  context.scale(RATIO, RATIO);
  draw(context, size / 2);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function disc(context: CanvasRenderingContext2D, centre: number, radius: number): void {
  context.beginPath();
  context.arc(centre, centre, radius, 0, 2 * Math.PI);
}

function polygon(context: CanvasRenderingContext2D, centre: number, radius: number, corners: number, turn: number): void {
  context.beginPath();
  for (let i = 0; i < corners; i += 1) {
    const angle = turn + (i / corners) * 2 * Math.PI;
    context.lineTo(centre + radius * Math.cos(angle), centre + radius * Math.sin(angle));
  }
  context.closePath();
}

function halo(context: CanvasRenderingContext2D, centre: number, radius: number, colour: string): void {
  disc(context, centre, radius);
  context.globalAlpha = 0.28;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

function outlined(context: CanvasRenderingContext2D, fill: string, line: string): void {
  context.fillStyle = fill;
  context.fill();
  context.lineWidth = 1.25;
  context.strokeStyle = line;
  context.stroke();
}

function drawing(mark: MarkName, palette: Palette): Draw {
  const ground = palette.land;
  const draws: Record<MarkName, Draw> = {
    live: (context, centre) => {
      disc(context, centre, 2.6);
      outlined(context, palette.live, ground);
    },
    late: (context, centre) => {
      halo(context, centre, 8.5, palette.late);
      polygon(context, centre, 5.2, 4, 0);
      outlined(context, palette.late, ground);
    },
    silent: (context, centre) => {
      halo(context, centre, 11, palette.silent);
      polygon(context, centre, 6.8, 3, -Math.PI / 2);
      outlined(context, palette.silent, ground);
    },
    never: (context, centre) => {
      disc(context, centre, 3);
      context.lineWidth = 1.4;
      context.strokeStyle = palette.never;
      context.stroke();
    },
    flagged: (context, centre) => {
      halo(context, centre, 8.5, palette.flagged);
      polygon(context, centre, 5.4, 4, Math.PI / 4);
      outlined(context, palette.flagged, ground);
    },
  };
  return draws[mark];
}

export function markImage(mark: MarkName, palette: Palette): ImageData {
  return image(24, drawing(mark, palette));
}

/** Draw a cluster: how many devices it holds, ringed where some of them need a look. */
export function clusterImage(count: number, alarming: number, palette: Palette): ImageData {
  const radius = 11 + Math.min(9, Math.log10(count) * 4);
  return image(Math.ceil(radius * 2 + 8), (context, centre) => {
    if (alarming > 0) halo(context, centre, radius + 3.5, palette.silent);
    disc(context, centre, radius);
    outlined(context, palette.cluster, alarming > 0 ? palette.silent : palette.outline);
    context.fillStyle = palette.text;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(count), centre, centre + 0.5);
  });
}

export { RATIO };
