"""A small slim net: arg_scope, batch_norm with updates in a collection, end points, slim's train op."""

import tensorflow as tf

slim = tf.contrib.slim


def net_arg_scope(weight_decay=0.004, is_training=True):
    batch_norm_params = {
        "decay": 0.9,
        "epsilon": 0.001,
        "updates_collections": tf.GraphKeys.UPDATE_OPS,
        "is_training": is_training,
    }
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        weights_regularizer=slim.l2_regularizer(weight_decay),
        weights_initializer=tf.truncated_normal_initializer(stddev=0.1),
    ):
        with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, normalizer_params=batch_norm_params) as sc:
            return sc


def small_net(images, num_classes=4, scope="SmallNet"):
    end_points = {}
    with tf.variable_scope(scope, "SmallNet", [images]):
        net = slim.conv2d(images, 4, [3, 3], scope="conv1")
        end_points["conv1"] = net
        net = slim.max_pool2d(net, [2, 2], 2, scope="pool1")
        net = slim.conv2d(net, 6, [3, 3], padding="VALID", scope="conv2")
        end_points["conv2"] = net
        net = slim.flatten(net)
        net = slim.fully_connected(net, 8, scope="fc3")
        logits = slim.fully_connected(net, num_classes, activation_fn=None, scope="logits")
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


def build(is_training):
    images = tf.placeholder(tf.float32, [None, 8, 8, 2], name="images")
    labels = tf.placeholder(tf.float32, [None, 4], name="labels")
    with slim.arg_scope(net_arg_scope(is_training=is_training)):
        logits, end_points = small_net(images)
    tf.losses.softmax_cross_entropy(labels, logits, label_smoothing=0.1)
    total_loss = tf.losses.get_total_loss()
    optimizer = tf.train.RMSPropOptimizer(0.01, decay=0.9, momentum=0.9, epsilon=1.0)
    train_op = slim.learning.create_train_op(total_loss, optimizer)
    return end_points, total_loss, train_op


# tfport >
def graph():
    is_training = tf.placeholder(tf.bool, [], name="is_training")
    end_points, loss, train_op = build(is_training)
    return {"outputs": {"predictions": end_points["Predictions"]}, "loss": loss, "train_op": train_op}


# < tfport
