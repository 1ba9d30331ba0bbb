"""A word model after the PTB tutorial: stacked BasicLSTMCells unrolled by hand, clipping by the global norm."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


class SmallConfig:
    init_scale = 0.3
    learning_rate = 1.0
    max_grad_norm = 0.5
    num_layers = 2
    num_steps = 4
    hidden_size = 6
    batch_size = 4
    vocab_size = 9


class PTBModel:
    def __init__(self, is_training, config):
        self.batch_size = batch_size = config.batch_size
        self.num_steps = num_steps = config.num_steps
        size = config.hidden_size
        self._input_data = tf.placeholder(tf.int32, [batch_size, num_steps], name="input_data")
        self._targets = tf.placeholder(tf.int32, [batch_size, num_steps], name="targets")

        def lstm_cell():
            return tf.nn.rnn_cell.BasicLSTMCell(size, forget_bias=0.0, state_is_tuple=True)

        cell = tf.nn.rnn_cell.MultiRNNCell([lstm_cell() for _ in range(config.num_layers)], state_is_tuple=True)
        self._initial_state = cell.zero_state(batch_size, tf.float32)
        with tf.device("/cpu:0"):
            embedding = tf.get_variable("embedding", [config.vocab_size, size], dtype=tf.float32)
            inputs = tf.nn.embedding_lookup(embedding, self._input_data)
        outputs = []
        state = self._initial_state
        with tf.variable_scope("RNN"):
            for time_step in range(num_steps):
                if time_step > 0:
                    tf.get_variable_scope().reuse_variables()
                (cell_output, state) = cell(inputs[:, time_step, :], state)
                outputs.append(cell_output)
        output = tf.reshape(tf.concat(outputs, 1), [-1, size])
        softmax_w = tf.get_variable("softmax_w", [size, config.vocab_size], dtype=tf.float32)
        softmax_b = tf.get_variable("softmax_b", [config.vocab_size], dtype=tf.float32)
        self.logits = tf.matmul(output, softmax_w) + softmax_b
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            logits=self.logits, labels=tf.reshape(self._targets, [-1])
        )
        self._cost = cost = tf.reduce_sum(loss) / batch_size
        self._final_state = state
        if not is_training:
            return
        self._lr = tf.Variable(config.learning_rate, trainable=False)
        tvars = tf.trainable_variables()
        grads, _ = tf.clip_by_global_norm(tf.gradients(cost, tvars), config.max_grad_norm)
        optimizer = tf.train.GradientDescentOptimizer(self._lr)
        self._train_op = optimizer.apply_gradients(zip(grads, tvars), global_step=tf.train.get_or_create_global_step())


def next_batch(step):
    rng = np.random.RandomState(step)
    tokens = rng.randint(9, size=[4, 5]).astype("int32")
    return {"input_data": tokens[:, :-1], "targets": tokens[:, 1:]}


# tfport >
def graph():
    config = SmallConfig()
    initializer = tf.random_uniform_initializer(-config.init_scale, config.init_scale)
    with tf.variable_scope("model", reuse=None, initializer=initializer):
        m = PTBModel(is_training=True, config=config)
    return {"outputs": {"logits": m.logits}, "loss": m._cost, "train_op": m._train_op}


# < tfport
