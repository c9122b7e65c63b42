"""Which route a turn takes: rules, the trained classifier, the language model; training and evaluation of the classifier."""
