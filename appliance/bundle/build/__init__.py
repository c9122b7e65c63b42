"""Makes a bundle out of a definition: components, chunks, SBOM, provenance, signature. Runs on the station only."""
