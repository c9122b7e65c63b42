"""The first pair of transformers of a specialised model: Python source in, features of its syntax tree, findings out."""
