"""Sealing: the bundle format and its verification, building, media, installation. Verify and install need nothing but Python and libcrypto."""
