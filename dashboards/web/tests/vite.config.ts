import { readdirSync } from "node:fs";
import { defineConfig } from "vite";

const here = import.meta.dirname;
const tests = readdirSync(here).filter((name) => name.endsWith(".test.ts"));

/** Bundles the tests for `node --test`, so that they run on every Node that can build the page. */
export default defineConfig({
  root: `${here}/..`,
  publicDir: false,
  build: {
    ssr: true,
    target: "es2022",
    outDir: "node_modules/.tests",
    emptyOutDir: true,
    rolldownOptions: { input: tests.map((name) => `${here}/${name}`) },
  },
});
