"""Which task comes next, and who does it: pure, in memory, synchronous, without IO. Times are Unix seconds and are always passed in."""
