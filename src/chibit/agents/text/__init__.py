"""Instructions in words: a sequence model that reads what each episode is for."""
