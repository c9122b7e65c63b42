"""The built-in extractive reader: answers with verbatim quotes, or says that the documents do not contain the answer."""
