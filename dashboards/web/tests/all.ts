/** Every test of the folder in one bundle, which Node runs as it is. */
import.meta.glob("./*.test.ts", { eager: true });
