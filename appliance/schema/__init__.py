"""JSON Schema inside the box: the gate that admits schemas and checks values, bounded; grammars that constrain a model."""
