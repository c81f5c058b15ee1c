"""chibit: offline reinforcement learning as sequence modelling, with pre-trained weights."""
