"""`tfport check`: whether a user's own port computes what its original computes, and where first it does not."""
