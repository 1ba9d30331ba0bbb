"""A sequence regressor: DropoutWrapper around an LSTMCell, dynamic_rnn, the last output, a keep_prob placeholder."""

import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

rnn_unit, input_size, time_step = 5, 2, 4
keep_prob = tf.placeholder(tf.float32, name="keep_prob")
X = tf.placeholder(tf.float32, shape=[None, time_step, input_size], name="X")
Y = tf.placeholder(tf.float32, shape=[None, 1], name="Y")

weights = {
    "in": tf.Variable(tf.random_normal([input_size, rnn_unit]), name="w_in"),
    "out": tf.Variable(tf.random_normal([rnn_unit, 1]), name="w_out"),
}
biases = {
    "in": tf.Variable(tf.constant(0.1, shape=[rnn_unit]), name="b_in"),
    "out": tf.Variable(tf.constant(0.1, shape=[1]), name="b_out"),
}


def lstm(X):
    w_in, b_in = weights["in"], biases["in"]
    input = tf.reshape(X, [-1, input_size])
    input_rnn = tf.matmul(input, w_in) + b_in
    input_rnn = tf.reshape(input_rnn, [-1, time_step, rnn_unit])
    cell = tf.nn.rnn_cell.BasicLSTMCell(rnn_unit)
    cell = tf.nn.rnn_cell.DropoutWrapper(cell, output_keep_prob=keep_prob)
    output_rnn, final_states = tf.nn.dynamic_rnn(cell, input_rnn, dtype=tf.float32)
    output = output_rnn[:, -1, :]
    return tf.matmul(output, weights["out"]) + biases["out"], final_states


pred, _ = lstm(X)
loss = tf.reduce_mean(tf.square(tf.reshape(pred, [-1]) - tf.reshape(Y, [-1])))
train_op = tf.train.AdamOptimizer(0.006).minimize(loss)


# tfport >
def graph():
    return {
        "outputs": {"pred": pred},
        "loss": loss,
        "train_op": train_op,
        "training": {keep_prob: 0.5},
        "inference": {keep_prob: 1.0},
    }


# < tfport
