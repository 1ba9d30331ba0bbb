"""The MNIST convnet of the tf.layers guide, cut down: valid and same padding, dropout with a training flag."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


def conv_net(x_dict, n_classes, dropout, reuse, is_training):
    with tf.variable_scope("ConvNet", reuse=reuse):
        x = tf.reshape(x_dict, shape=[-1, 8, 8, 1])
        conv1 = tf.layers.conv2d(x, 4, 3, activation=tf.nn.relu)
        conv1 = tf.layers.max_pooling2d(conv1, 2, 2)
        conv2 = tf.layers.conv2d(conv1, 6, 2, strides=2, padding="same", activation=tf.nn.relu)
        conv2 = tf.layers.batch_normalization(conv2, training=is_training, momentum=0.9)
        fc1 = tf.layers.flatten(conv2)
        fc1 = tf.layers.dense(fc1, 10)
        fc1 = tf.layers.dropout(fc1, rate=dropout, training=is_training)
        return tf.layers.dense(fc1, n_classes)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "image": rng.uniform(size=[6, 64]).astype("float32"),
        "label": rng.randint(5, size=[6]).astype("int64"),
    }


# tfport >
def graph():
    image = tf.placeholder(tf.float32, [None, 64], name="image")
    label = tf.placeholder(tf.int64, [None], name="label")
    logits_train = conv_net(image, 5, 0.25, reuse=False, is_training=True)
    logits_test = conv_net(image, 5, 0.25, reuse=True, is_training=False)
    loss_op = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits_train, labels=label))
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.AdamOptimizer(learning_rate=0.01).minimize(loss_op)
    return {
        "outputs": {"training": {"logits": logits_train}, "inference": {"logits": logits_test}},
        "loss": loss_op,
        "train_op": train_op,
    }


# < tfport
