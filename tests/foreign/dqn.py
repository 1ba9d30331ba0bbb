"""Deep Q-learning with a target network copied by assign ops, Huber loss by hand and clipped gradients."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


class DeepQNetwork:
    def __init__(self, n_actions=3, n_features=4, learning_rate=0.01, reward_decay=0.9, replace_target_iter=2):
        self.n_actions = n_actions
        self.n_features = n_features
        self.lr = learning_rate
        self.gamma = reward_decay
        self.replace_target_iter = replace_target_iter
        self.learn_step_counter = 0
        self._build_net()
        t_params = tf.get_collection("target_net_params")
        e_params = tf.get_collection("eval_net_params")
        self.replace_target_op = [tf.assign(t, e) for t, e in zip(t_params, e_params)]

    def _layers(self, s, c_names, n_l1, w_initializer, b_initializer):
        with tf.variable_scope("l1"):
            w1 = tf.get_variable("w1", [self.n_features, n_l1], initializer=w_initializer, collections=c_names)
            b1 = tf.get_variable("b1", [1, n_l1], initializer=b_initializer, collections=c_names)
            l1 = tf.nn.relu(tf.matmul(s, w1) + b1)
        with tf.variable_scope("l2"):
            w2 = tf.get_variable("w2", [n_l1, self.n_actions], initializer=w_initializer, collections=c_names)
            b2 = tf.get_variable("b2", [1, self.n_actions], initializer=b_initializer, collections=c_names)
            return tf.matmul(l1, w2) + b2

    def _build_net(self):
        self.s = tf.placeholder(tf.float32, [None, self.n_features], name="s")
        self.a = tf.placeholder(tf.int32, [None], name="a")
        self.r = tf.placeholder(tf.float32, [None], name="r")
        self.s_ = tf.placeholder(tf.float32, [None, self.n_features], name="s_")
        self.done = tf.placeholder(tf.float32, [None], name="done")
        w, b = tf.random_normal_initializer(0.0, 0.3), tf.constant_initializer(0.1)
        with tf.variable_scope("eval_net"):
            c_names = ["eval_net_params", tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.TRAINABLE_VARIABLES]
            self.q_eval = self._layers(self.s, c_names, 10, w, b)
        with tf.variable_scope("target_net"):
            c_names = ["target_net_params", tf.GraphKeys.GLOBAL_VARIABLES]
            self.q_next = self._layers(self.s_, c_names, 10, w, b)
        with tf.variable_scope("q_target"):
            q_target = self.r + self.gamma * (1.0 - self.done) * tf.reduce_max(self.q_next, axis=1, name="Qmax_s_")
            self.q_target = tf.stop_gradient(q_target)
        with tf.variable_scope("q_eval"):
            a_indices = tf.stack([tf.range(tf.shape(self.a)[0], dtype=tf.int32), self.a], axis=1)
            self.q_eval_wrt_a = tf.gather_nd(params=self.q_eval, indices=a_indices)
        with tf.variable_scope("loss"):
            error = self.q_target - self.q_eval_wrt_a
            huber = tf.where(tf.abs(error) < 1.0, 0.5 * tf.square(error), tf.abs(error) - 0.5)
            self.loss = tf.reduce_mean(huber, name="TD_error")
        with tf.variable_scope("train"):
            optimizer = tf.train.RMSPropOptimizer(self.lr, decay=0.95, momentum=0.0, epsilon=0.01)
            gradients = optimizer.compute_gradients(self.loss)
            for i, (grad, var) in enumerate(gradients):
                if grad is not None:
                    gradients[i] = (tf.clip_by_norm(grad, 0.2), var)
            self._train_op = optimizer.apply_gradients(gradients)

    def learn(self, sess, batch):
        if self.learn_step_counter % self.replace_target_iter == 0:
            sess.run(self.replace_target_op)
        feed = {self.s: batch["s"], self.a: batch["a"], self.r: batch["r"], self.s_: batch["s_"]}
        _, cost = sess.run([self._train_op, self.loss], feed_dict={**feed, self.done: batch["done"]})
        self.learn_step_counter += 1
        return cost


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "s": rng.normal(size=[8, 4]).astype("float32"),
        "a": rng.randint(3, size=[8]).astype("int32"),
        "r": (3 * rng.normal(size=[8])).astype("float32"),
        "s_": rng.normal(size=[8, 4]).astype("float32"),
        "done": (rng.uniform(size=[8]) < 0.3).astype("float32"),
    }


# tfport >
def graph():
    agent = DeepQNetwork()
    return {
        "outputs": {"q": agent.q_eval, "q_next": agent.q_next},
        "losses": {"learn": agent.loss},
        "train_ops": {"replace": tf.group(*agent.replace_target_op), "learn": agent._train_op},
    }


# < tfport
