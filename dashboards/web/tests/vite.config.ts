import { defineConfig } from "vite";

const here = import.meta.dirname;

/** Bundles the tests for Node, so that they run on every Node that can build the page. */
export default defineConfig({
  root: `${here}/..`,
  publicDir: false,
  build: {
    ssr: `${here}/all.ts`,
    target: "es2022",
    outDir: "node_modules/.tests",
    emptyOutDir: true,
  },
});
