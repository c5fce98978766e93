//! Losses, optimizers, schedules, the training loop and its checkpoints.
