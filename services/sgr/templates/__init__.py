"""Corporate templates: what they may hold, their language, how they are kept."""
