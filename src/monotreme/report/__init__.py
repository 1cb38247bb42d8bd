"""What a person looks at: a run's records as tables."""
