"""The routes, one module a noun, each with its `router`."""
