"""The models as TF1 graphs: tf.Variable, placeholders, a Session and feed_dict, under tf.compat.v1."""
