"""Who is asking and what they may do: principals, credentials, tokens, roles, spaces."""
