"""Domain adversarial net: the gradient reversal is a registered gradient, overridden op by op."""

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops

tf.disable_v2_behavior()


class FlipGradientBuilder:
    def __init__(self):
        self.num_calls = 0

    def __call__(self, x, l=1.0):
        grad_name = "FlipGradient%d" % self.num_calls

        @ops.RegisterGradient(grad_name)
        def _flip_gradients(op, grad):
            return [tf.negative(grad) * l]

        g = tf.get_default_graph()
        with g.gradient_override_map({"Identity": grad_name}):
            y = tf.identity(x)
        self.num_calls += 1
        return y


flip_gradient = FlipGradientBuilder()


class Model:
    def __init__(self):
        self.X = tf.placeholder(tf.float32, [None, 6], name="X")
        self.y = tf.placeholder(tf.int32, [None], name="y")
        self.domain = tf.placeholder(tf.int32, [None], name="domain")
        with tf.variable_scope("feature_extractor"):
            W0 = tf.get_variable("W0", [6, 8], initializer=tf.truncated_normal_initializer(stddev=0.3))
            b0 = tf.get_variable("b0", [8], initializer=tf.constant_initializer(0.1))
            self.feature = tf.nn.relu(tf.matmul(self.X, W0) + b0, name="feature")
        with tf.variable_scope("label_predictor"):
            W1 = tf.get_variable("W1", [8, 3], initializer=tf.truncated_normal_initializer(stddev=0.3))
            b1 = tf.get_variable("b1", [3], initializer=tf.constant_initializer(0.1))
            # the source domain is the first half of a batch
            features = tf.slice(self.feature, [0, 0], [4, -1])
            logits = tf.matmul(features, W1) + b1
            labels = tf.slice(self.y, [0], [4])
            self.pred = tf.nn.softmax(tf.matmul(self.feature, W1) + b1)
            self.pred_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
        with tf.variable_scope("domain_predictor"):
            feat = flip_gradient(self.feature, 0.7)
            W2 = tf.get_variable("W2", [8, 2], initializer=tf.truncated_normal_initializer(stddev=0.3))
            b2 = tf.get_variable("b2", [2], initializer=tf.constant_initializer(0.1))
            d_logit = tf.matmul(feat, W2) + b2
            self.domain_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=d_logit, labels=self.domain)
        self.total_loss = tf.reduce_mean(self.pred_loss) + tf.reduce_mean(self.domain_loss)
        self.train_op = tf.train.MomentumOptimizer(0.05, 0.9).minimize(self.total_loss)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "X": rng.normal(size=[8, 6]).astype("float32"),
        "y": rng.randint(3, size=[8]).astype("int32"),
        "domain": np.array([0] * 4 + [1] * 4, "int32"),
    }


# tfport >
def graph():
    model = Model()
    return {"outputs": {"pred": model.pred}, "loss": model.total_loss, "train_op": model.train_op}


# < tfport
