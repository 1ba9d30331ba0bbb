"""The models in the paradigms of TensorFlow 2: GradientTape, Keras 2 and Keras 3."""
