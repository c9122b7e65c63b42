"""llama.cpp in a supervised child process: what it needs, its process, its supervision, how it is asked for tools and schemas."""
