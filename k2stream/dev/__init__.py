"""Real servers for development and tests, each a child on a free loopback port: `k2 dev up`, and the fixtures of tests/services."""
