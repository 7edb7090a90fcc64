"""What a configuration will cost and how fast it will be, and the best one for a model."""
