"""The two tasks as two compiled Keras 2 models that share a layer."""

import tensorflow as tf
import tf_keras
from tf_keras import layers


def half_squares(y_true, y_pred):
    return tf.reduce_sum(tf.square(y_true - y_pred)) / 2


def build(one_optimizer=False):
    normal = tf_keras.initializers.TruncatedNormal(stddev=0.1)
    ten = tf_keras.initializers.Constant(0.1)
    x = tf_keras.Input([6], name="x")
    shared = layers.Dense(10, "elu", kernel_initializer=normal, bias_initializer=ten, name="shared")(x)
    probs = layers.Dense(3, "softmax", kernel_initializer=normal, bias_initializer=ten, name="cls")(shared)
    value = layers.Dense(1, kernel_initializer=normal, bias_initializer=ten, name="reg")(shared)
    classifier = tf_keras.Model(x, probs, name="classifier")
    regressor = tf_keras.Model(x, value, name="regressor")
    classifier.compile(tf_keras.optimizers.Adam(0.01, epsilon=1e-8), "categorical_crossentropy")
    sgd = tf_keras.optimizers.SGD(0.05, momentum=0.9)
    regressor.compile(classifier.optimizer if one_optimizer else sgd, half_squares)
    if one_optimizer:
        every = {id(each): each for model in (classifier, regressor) for each in model.trainable_variables}
        classifier.optimizer.build(list(every.values()))
    return classifier, regressor


def program(**options):
    classifier, regressor = build(**options)
    # tfport >
    return {
        "models": {"classifier": classifier, "regressor": regressor},
        "phases": {
            "cls": lambda batch: classifier.train_on_batch(batch["x"], batch["y_cls"]),
            "reg": lambda batch: regressor.train_on_batch(batch["x"], batch["y_reg"]),
        },
        "outputs": lambda batch, training: {"probs": classifier(batch["x"]), "value": regressor(batch["x"])},
    }
    # < tfport


def right():
    return program()


def wrong():
    return program(one_optimizer=True)
