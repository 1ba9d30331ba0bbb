"""Code of TensorFlow 1 as it stands in the wild: slim, arg_scope and `import tensorflow as tf`."""

import tensorflow as tf
import tensorflow.contrib.slim as slim
from tensorflow.contrib.framework import arg_scope
from tensorflow.contrib.layers import xavier_initializer
from tensorflow.examples.tutorials.mnist import input_data

read_data_sets = input_data.read_data_sets


def net(images, is_training):
    normalizer = {"is_training": is_training, "decay": 0.9}
    with arg_scope([slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(0.01)):
        with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, normalizer_params=normalizer):
            net = slim.conv2d(images, 4, [3, 3], scope="conv1")
        net = slim.max_pool2d(net, [2, 2], scope="pool1")
        net = slim.dropout(slim.flatten(net), 0.7, is_training=is_training)
        return slim.fully_connected(
            net, 10, activation_fn=None, weights_initializer=xavier_initializer(), scope="logits"
        )


def build():
    images = tf.placeholder(tf.float32, [None, 8, 8, 1], name="images")
    labels = tf.placeholder(tf.int64, [None], name="labels")
    is_training = tf.placeholder_with_default(False, [], name="is_training")
    logits = net(images, is_training)
    slim.losses.sparse_softmax_cross_entropy(logits, labels)
    loss = slim.losses.get_total_loss()
    train_op = slim.learning.create_train_op(loss, tf.train.MomentumOptimizer(0.01, 0.9))
    modes = {"training": {is_training: True}, "inference": {is_training: False}}
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train_op, **modes}


def gone():
    return tf.contrib.layers.optimize_loss(0.0, None, 0.1, "Adam")


def gone_module():
    from tensorflow.contrib.seq2seq import TrainingHelper

    return TrainingHelper
