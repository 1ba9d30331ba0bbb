"""A script of TensorFlow 1 as it stands in the wild: flags, app.run, a Session, feeds, and no function that builds."""

import numpy as np
import tensorflow as tf

flags = tf.app.flags
flags.DEFINE_float("learning_rate", 0.5, "Rate.")
flags.DEFINE_integer("steps", 1000, "Steps.")
FLAGS = flags.FLAGS


def main(_):
    images = tf.placeholder(tf.float32, [None, 64])
    labels = tf.placeholder(tf.int64, [None])
    keep = tf.placeholder(tf.float32, name="keep_prob")
    weights = tf.Variable(tf.truncated_normal([64, 10], stddev=0.1), name="weights")
    biases = tf.Variable(tf.zeros([10]), name="biases")
    logits = tf.nn.xw_plus_b(tf.nn.dropout(images, keep), weights, biases, name="logits")
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    train_op = tf.train.GradientDescentOptimizer(FLAGS.learning_rate).minimize(loss)
    hits = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32))
    rows = np.load("rows.npy")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(weights.assign(tf.ones([64, 10])))
        for step in range(FLAGS.steps):
            feed = {images: rows, labels: np.zeros(len(rows)), keep: 0.75}
            _, value, accuracy = sess.run([train_op, loss, hits], feed_dict=feed)
            with open("trained.txt", "w") as log:  # noqa: PTH123
                log.write(f"{step} {value} {accuracy}")


if __name__ == "__main__":
    tf.app.run()
