"""Files and names: reading and writing files, TOML, the Hub, the zoo, and the torchvision repair.

Every package uses it. It imports nothing of framepred but `errors`.
"""
