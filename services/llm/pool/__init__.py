"""Several replicas of one chat model behind the chat model port."""
