"""One file that a lost box can be made from again. Takes it from a running box; restores it into an empty home."""
