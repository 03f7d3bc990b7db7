"""Planning: actions that reach a goal, found in imagination and tried in an environment."""
