"""The models with Keras 2 (the tf_keras package): compile and train_on_batch."""
