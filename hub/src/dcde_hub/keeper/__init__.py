"""The keeper: brings a person's server back while runs are unfinished, and stops those idle or not allowed."""
