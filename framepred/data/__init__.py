"""Sources of episodes: video folders, Gymnasium recordings and token stores."""
