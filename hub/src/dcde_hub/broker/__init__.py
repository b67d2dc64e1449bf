"""The broker: tells a person's server which sites there are, and hands it short-lived certificates for them."""
