"""The installed side: generations, the switch, rollback, history. Standard library only: it runs on a bare host."""
