"""What each column and row of a table of scores means, in few words each."""

COLUMNS = {
    "PSNR dB": "nearness to the real frames; +3 dB is half the squared error",
    "SSIM": "structural similarity to the real frames; 1 is equal",
    "moving dB": "PSNR of what moves: a pixel counts by its real change",
    "LPIPS": "distance to the real frames as a network sees it; lower is nearer",
    "FID": "distance of the sets of frames as a network sees it; lower is nearer",
    "FVD": "distance of the sets of clips as a network sees it; lower is nearer",
    "sharpness": "image gradient over the real one; below 1 is blurred",
    "motion ratio": "change from frame to frame over the real one; 0 stands still",
    "frozen": "share of frames that repeat the frame before",
    "bits/frame": "what a real frame's tokens cost the model; lower is better",
    "tokens right": "share of a real frame's tokens that it guessed first",
    "over copying": "moving dB above copying the last frame; above 0 is better",
}
"""Column → what it means, for a line of a terminal."""

ROWS = {
    "model": "one future of each clip, with the clip's actions where the run knows actions",
    "model, mean of samples": "the mean picture of all futures: nearest in squared error, blurred where they differ",
    "model, true actions": "the clips with actions alone",
    "model, no actions": "the same model, told no actions",
    "model, shuffled actions": "the same model, told another clip's actions: no worse if it ignores actions",
    "copy last frame": "the last given frame again and again: a model below this predicts nothing",
    "linear extrapolation": "each pixel goes on changing as it changed last",
    "nearest training clip": "what came next in the training clip that looks most like this one",
    "decoder alone": "a temporal tokenizer's own guess, all tokens at “as expected”: what the Llama must add to",
    "tokenizer ceiling": "the real frames, encoded and decoded: the best it can give back; a copied frame, "
    "or one that a temporal tokenizer draws from real ones, was never encoded and can be better",
}
"""Row → what it means."""

WORDS = {
    "context": "the real frames that are given before the first predicted one",
    "horizon": "how many frames are predicted after the context; +3 is the third of them",
    "one future": "one random draw of what could come next; another seed gives another one",
    "samples": "futures drawn of each clip; their scores are averaged, or the best is taken, as the protocol says",
    "temperature": "0 always takes the likeliest token; 1 draws each as often as the model expects it",
    "frames counted": "the predicted ones (future), or also the context as the tokenizer gives it back (all)",
    "truth": "the real frames that came next",
    "where the picture moves": "counted by moving dB: a pixel weighs as much as it changed from the real frame before",
    "motion": "how much the real frames change from one to the next: mean difference of pixels from 0 to 1",
    "±": "half of the interval in which the mean over other clips of the same kind would lie (bootstrap over clips)",
    "pooled": "the squared error is averaged over frames and clips before it becomes decibels",
    "protocol": "what is shown, predicted and counted; only tables with the same hash can be compared",
    "teacher-forced": "each real frame is predicted given the real frames before it, not the predicted ones",
    "right way": "how often the picture differs from those after the other actions as the real one does",
    "own future": "how often the picture is nearer to what the action really leads to than to what another one does; "
    "50 % is chance",
    "nats": "the unit of −log of a probability; a bit is 0.69 nats",
    "confidence, ECE": "the probability of the likeliest token, and its mean distance to how often that was right",
    "energy score": "distance of the samples to the truth, less half of their distance to each other; lower is better",
    "rank": "how many samples are below the truth at a pixel; even ranks mean that samples spread as the truth does",
}
"""Other words → what they mean."""

SURPRISE = {
    "the model was": "sure and wrong: it expected something else; unsure: nothing definite",
    "surprise": "how unusual, in standard deviations above an ordinary frame",
    "NLL": "what the frame cost, nats a token: −log of its probability",
    "entropy": "how unsure the model was before it came, nats a token",
}
"""Column of `framepred surprise` → what it means."""
