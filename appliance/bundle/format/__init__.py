"""What a bundle is: its bytes, its manifest, its signatures. Standard library only; nothing here opens a file by itself except ``reader``."""
