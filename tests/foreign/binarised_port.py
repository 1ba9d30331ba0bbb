"""The binarised net in Keras 3: a layer of one's own and a constraint."""

import keras
import tensorflow as tf


def sign(saturating):
    @tf.custom_gradient
    def forward(x):
        def backward(upstream):
            return upstream * tf.cast(tf.abs(x) <= 1.0, upstream.dtype) if saturating else upstream

        return tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x)), backward

    return forward


class Clip(keras.constraints.Constraint):
    def __call__(self, w):
        return keras.ops.clip(w, -1.0, 1.0)


class BinaryDense(keras.layers.Layer):
    def __init__(self, units, saturating, **options):
        super().__init__(**options)
        self.units, self.sign = units, sign(saturating)

    def build(self, shape):
        uniform = keras.initializers.RandomUniform(-1.2, 1.2)
        self.kernel = self.add_weight(
            name="kernel", shape=[shape[-1], self.units], initializer=uniform, constraint=Clip()
        )
        self.scale = self.add_weight(name="scale", shape=[self.units], initializer="ones")

    def call(self, x):
        return tf.matmul(x, self.sign(tf.convert_to_tensor(self.kernel))) * self.scale


class SquaredHinge(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(keras.ops.maximum(1.0 - y_true * y_pred, 0.0)), axis=-1)


def build(saturating):
    activation = sign(saturating)
    x = keras.Input([8], name="x")
    h = BinaryDense(10, saturating, name="layer1")(x)
    h = keras.layers.Lambda(lambda h: activation(h / 3.0), output_shape=(10,))(h)
    y = BinaryDense(4, saturating, name="layer2")(h)
    model = keras.Model(x, y)
    model.compile(keras.optimizers.Adam(0.02, epsilon=1e-8), SquaredHinge())
    return model


def right():
    return build(True)


def wrong():
    return build(False)
