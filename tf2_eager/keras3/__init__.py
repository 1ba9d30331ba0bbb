"""The models with Keras 3 (the keras package): compile and train_on_batch."""
