"""A plugin that cannot be loaded costs only itself."""

raise RuntimeError("broken on purpose")
