"""One package per service. They never import each other; only ``allinone`` builds them together."""
