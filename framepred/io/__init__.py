"""Files and names: reading and writing files, TOML, the Hub, the zoo, progress, and the torchvision repair.

The lowest package: every other one may use it. It imports `errors` only.
"""
