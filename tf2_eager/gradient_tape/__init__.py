"""The models with tf.Module, tf.function and tf.GradientTape."""
