"""The equivalence ladder: whether two Subjects are one computation, and where first they are not."""
