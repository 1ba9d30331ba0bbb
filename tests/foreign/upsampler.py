"""A decoder that upsamples with tf.image.resize_bilinear(align_corners=True), as segmentation nets of 2017 did."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

_WEIGHT_DECAY = 1e-3
IGNORE_LABEL = 255


def conv(inputs, filters, size, stride, name, relu=True, rate=1):
    with tf.variable_scope(name):
        w = tf.get_variable(
            "weights",
            [size, size, int(inputs.shape[-1]), filters],
            initializer=tf.variance_scaling_initializer(),
            regularizer=lambda t: _WEIGHT_DECAY * tf.nn.l2_loss(t),
        )
        b = tf.get_variable("biases", [filters], initializer=tf.zeros_initializer())
        if rate > 1:
            net = tf.nn.atrous_conv2d(inputs, w, rate, padding="SAME")
        else:
            net = tf.nn.conv2d(inputs, w, [1, stride, stride, 1], "SAME")
        net = tf.nn.bias_add(net, b)
        return tf.nn.relu(net) if relu else net


def network(images):
    size = images.shape.as_list()[1:3]
    net = conv(images, 4, 3, 2, "conv1")
    branch = [conv(net, 4, 3, 1, "aspp%d" % r, rate=r) for r in (1, 2)]
    pooled = tf.reduce_mean(net, [1, 2], keepdims=True)
    pooled = conv(pooled, 4, 1, 1, "pool")
    pooled = tf.image.resize_bilinear(pooled, net.shape.as_list()[1:3], align_corners=True)
    net = conv(tf.concat(branch + [pooled], axis=3), 3, 1, 1, "logits", relu=False)
    return tf.image.resize_bilinear(net, size, align_corners=True)


def loss_fn(logits, labels):
    raw = tf.reshape(logits, [-1, 3])
    flat = tf.reshape(labels, [-1])
    indices = tf.squeeze(tf.where(tf.less(flat, 3)), 1)
    gt = tf.gather(flat, indices)
    pred = tf.gather(raw, indices)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=pred, labels=gt))
    return loss + tf.add_n(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))


def next_batch(step):
    rng = np.random.RandomState(step)
    labels = rng.randint(3, size=[2, 8, 8])
    labels[rng.uniform(size=labels.shape) < 0.2] = IGNORE_LABEL
    return {"images": rng.normal(size=[2, 8, 8, 2]).astype("float32"), "labels": labels.astype("int32")}


# tfport >
def graph():
    images = tf.placeholder(tf.float32, [2, 8, 8, 2], "images")
    labels = tf.placeholder(tf.int32, [2, 8, 8], "labels")
    logits = network(images)
    loss = loss_fn(logits, labels)
    step = tf.train.get_or_create_global_step()
    rate = tf.train.polynomial_decay(0.1, step, 5, power=0.9)
    train_op = tf.train.GradientDescentOptimizer(rate).minimize(loss, global_step=step)
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train_op}


# < tfport
