"""The MNIST convnet as a compiled Keras 2 model."""

import tf_keras
from tf_keras import layers


def build(padding):
    model = tf_keras.Sequential(
        [
            layers.InputLayer([64], name="image"),
            layers.Reshape([8, 8, 1]),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(2),
            layers.ZeroPadding2D([[0, 1], [0, 1]]) if padding == "after" else layers.ZeroPadding2D([[1, 0], [1, 0]]),
            layers.Conv2D(6, 2, 2, activation="relu", name="conv2"),
            layers.BatchNormalization(momentum=0.9, name="norm"),
            layers.Flatten(),
            layers.Dense(10, name="fc1"),
            layers.Dropout(0.25),
            layers.Dense(5, name="logits"),
        ]
    )
    model.compile(
        tf_keras.optimizers.Adam(0.01, epsilon=1e-8),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def right():
    return build("after")


def wrong():
    return build("before")
