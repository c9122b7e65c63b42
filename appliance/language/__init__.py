"""Text analysis that several services share: terms and stems (``terms``), questions (``query``), stop words. Pure, no I/O."""
