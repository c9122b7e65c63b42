"""Templates of the release: files made by ``build``, committed."""
