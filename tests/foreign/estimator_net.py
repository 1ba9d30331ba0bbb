"""A custom estimator: model_fn with modes, feature dict, params, tf.layers, metrics and an L2 penalty by hand."""

import tensorflow as tf


def my_model(features, labels, mode, params):
    """DNN with two hidden layers and learning_rate=0.1."""
    net = tf.concat([features["continuous"], tf.one_hot(features["category"], params["n_categories"])], axis=1)
    for units in params["hidden_units"]:
        net = tf.layers.dense(
            net,
            units=units,
            activation=tf.nn.relu,
            kernel_regularizer=tf.contrib.layers.l2_regularizer(scale=params["l2"]),
        )
    logits = tf.layers.dense(net, params["n_classes"], activation=None)

    predicted_classes = tf.argmax(logits, 1)
    predictions = {"probabilities": tf.nn.softmax(logits), "logits": logits}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions=predictions)

    loss = tf.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)
    loss = loss + tf.losses.get_regularization_loss()
    accuracy = tf.metrics.accuracy(labels=labels, predictions=predicted_classes, name="acc_op")
    metrics = {"accuracy": accuracy}
    tf.summary.scalar("accuracy", accuracy[1])
    if mode == tf.estimator.ModeKeys.EVAL:
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)

    assert mode == tf.estimator.ModeKeys.TRAIN
    optimizer = tf.train.AdagradOptimizer(learning_rate=0.1)
    train_op = optimizer.minimize(loss, global_step=tf.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, predictions=predictions)


PARAMS = {"hidden_units": [8, 6], "n_classes": 3, "n_categories": 4, "l2": 0.05}


# tfport >
def graph():
    from tfport.legacy import estimator

    features = {
        "continuous": tf.placeholder(tf.float32, [None, 3], name="continuous"),
        "category": tf.placeholder(tf.int32, [None], name="category"),
    }
    return estimator.mapping(my_model, features, tf.placeholder(tf.int32, [None], name="labels"), PARAMS)


# < tfport
