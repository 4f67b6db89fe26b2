import { defineConfig, type ProxyOptions } from "vite";

/** Where `npm run dev` finds a running Qala. */
const server = process.env.QALA_URL ?? "http://127.0.0.1:8080";
const proxy: Record<string, ProxyOptions> = { "/api": { target: server }, "/metrics": { target: server } };

export default defineConfig({
  base: "./", // the page may be mounted below a path
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: { host: "127.0.0.1", port: 5173, proxy },
  preview: { host: "127.0.0.1", port: 4173, proxy },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false }, // the polyfill would be an inline script
    chunkSizeWarningLimit: 1200, // MapLibre, which loads after the first numbers are there
  },
  worker: { format: "es" },
});
