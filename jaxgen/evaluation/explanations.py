"""What each metric is called, and what it says, in a sentence."""

from collections.abc import Collection
from typing import NamedTuple


class Explanation(NamedTuple):
    """A metric in words."""

    title: str
    sentence: str


# By the beginning of the metric's name; the first that fits.
EXPLANATIONS = {
    "rFD-": Explanation(
        "Fréchet distance of reconstructions",
        "How far reconstructions are from their images as a whole, mean and spread of their features.",
    ),
    "rFID": Explanation(
        "Fréchet inception distance of reconstructions",
        "How far reconstructions are from their images as a whole, by Inception's features.",
    ),
    "FD-": Explanation(
        "Fréchet distance", "How far the samples are from test images as a whole, mean and spread of their features."
    ),
    "FID": Explanation(
        "Fréchet inception distance", "How far the samples are from test images as a whole, by Inception's features."
    ),
    "KD-": Explanation(
        "Kernel distance", "The same question asked in another way, without the bias that small sets have."
    ),
    "KID": Explanation("Kernel inception distance", "The same question asked without the bias that small sets have."),
    "precision-": Explanation("Precision", "Share of the samples that lie among real images: are they convincing?"),
    "recall-": Explanation("Recall", "Share of the real images that lie among samples: is all the variety there?"),
    "density-": Explanation("Density", "How many real images a sample has around it; 1 is typical of real ones."),
    "coverage-": Explanation("Coverage", "Share of the real images with a sample right beside them."),
    "CS-": Explanation(
        "Classifier score", "How sure a classifier is of each sample, and how even the classes are over all."
    ),
    "label-KL": Explanation("Imbalance of classes", "How far the classes of the samples are from those of the data."),
    "classes-": Explanation("Classes", "Classes that the samples show often enough."),
    "SW-pixels": Explanation(
        "Sliced Wasserstein distance", "How much brightness must be moved, pixel by pixel, to make samples real images."
    ),
    "diversity": Explanation("Diversity", "How different samples are from each other; 1 is as different as the data."),
    "duplicates": Explanation("Duplicates", "Share of pairs of samples that are nearer than any two real images."),
    "least-support": Explanation("Support", "How many different images the model makes at the least, by duplicates."),
    "nearest-MSE": Explanation(
        "Distance to a training image", "Squared error to the nearest one: far below the real column, it copies."
    ),
    "nearest-SSIM": Explanation(
        "Likeness to a training image",
        "Structural similarity to the nearest one: far above the real column, it copies.",
    ),
    "Parzen": Explanation("Parzen window", "A log-likelihood of 2014, for comparison with old papers: it likes blur."),
    "ELBO": Explanation("ELBO", "A lower bound of the log-probability of test images."),
    "reconstruction-MSE": Explanation("Reconstruction, squared error", "How far the decoded code is from the image."),
    "reconstruction-PSNR": Explanation("Reconstruction, PSNR", "The same in decibels: higher is nearer."),
    "reconstruction-SSIM": Explanation("Reconstruction, likeness", "The same by structure: 1 is the same image."),
    "sampled-MSE": Explanation(
        "Drawn reconstructions, squared error", "How far those of drawn latents are from those of the latents' means."
    ),
    "codes-used": Explanation("Codes used", "Share of all codes that occur in the latents of test images."),
    "code-perplexity": Explanation("Perplexity of codes", "How many codes, equally likely, would be as uncertain."),
    "bits-per-pixel": Explanation("Bits a pixel", "What the codes of an image cost, without compressing them further."),
    "active-channels": Explanation("Active channels", "Channels of the latents whose means vary over test images."),
    "reconstruction": Explanation("Reconstruction term", "The part of the ELBO that asks for the image itself."),
    "KL": Explanation("KL divergence", "The part of the ELBO that the code costs: how much it says of the image."),
    "log-likelihood": Explanation(
        "Log-likelihood", "The log-probability of test images by importance sampling, tighter than the ELBO."
    ),
    "active-units": Explanation("Active units", "Latent dimensions that the encoder uses."),
    "AIS-log-likelihood": Explanation(
        "Annealed log-likelihood", "Log-probability under noise around the decoder's means, of GANs and VAEs alike."
    ),
    "AIS-gap": Explanation("Annealed gap", "How far below the upper bound that is, on images that the model made."),
    "rebuilt-MSE": Explanation(
        "Rebuilt images, squared error",
        "Of images held back: by the encoder where there is one, by a search through the latents where there is none.",
    ),
    "completion-MSE": Explanation(
        "Completions, squared error", "Of the half that was hidden, against the mean of several completions."
    ),
    "stacked": Explanation("Stacked digits", "How many of the 1,000 combinations of three digits are made."),
}


def explain(metric: str) -> Explanation:
    """The words for a metric; its own name where there are none."""
    for beginning, found in EXPLANATIONS.items():
        if metric.startswith(beginning):
            return found
    return Explanation(metric, "")


class Score(NamedTuple):
    """A number that a run logs, in words."""

    title: str
    unit: str
    better: str  # "lower", "higher" or "neither"


# Of training and of evaluations meanwhile, by the beginning of the name; the first that fits.
SCORES = {
    "elbo": Score("ELBO of training images", "nats", "higher"),
    "reconstruction": Score("reconstruction term of training images", "nats", "higher"),
    "kl": Score("KL divergence of training images", "nats", "neither"),
    "loss": Score("training loss", "loss", "lower"),
    "generator_loss": Score("loss of the generator", "loss", "neither"),
    "discriminator_loss": Score("loss of the discriminator", "loss", "neither"),
    "real_logit": Score("output of the discriminator for real images", "logit", "neither"),
    "fake_logit": Score("output of the discriminator for generated images", "logit", "neither"),
    "real_sign": Score("sign of the discriminator's output for real images", "mean sign", "neither"),
    "penalty": Score("penalty of the discriminator, unweighted", "penalty", "neither"),
    "augmentation_probability": Score("probability of the augmentation", "probability", "neither"),
    "skipped_steps": Score("steps left out as not finite", "steps", "lower"),
    "test_elbo": Score("ELBO of test images", "nats", "higher"),
    "test_log_likelihood": Score("log-likelihood of test images", "nats", "higher"),
    "test_reconstruction": Score("reconstruction term of the ELBO", "nats", "higher"),
    "test_kl": Score("KL divergence of the ELBO", "nats", "neither"),
    "test_absolute_error": Score("absolute error of reconstructions", "range", "lower"),
    "test_squared_error": Score("squared error of reconstructions", "range squared", "lower"),
    "test_sliced_wasserstein": Score("sliced Wasserstein distance of samples", "share of the pixels' range", "lower"),
    "test_precision": Score("precision of samples", "share", "higher"),
    "test_recall": Score("recall of samples", "share", "higher"),
    "test_fd": Score("Fréchet distance of samples", "features squared", "lower"),
    "test_rfd": Score("Fréchet distance of reconstructions", "features squared", "lower"),
    "test_rfid": Score("Fréchet inception distance of reconstructions", "features squared", "lower"),
    "test_codes_used": Score("codes used on test images", "share of the codes", "higher"),
    "test_code_perplexity": Score("perplexity of the codes of test images", "codes", "higher"),
    "test_active_channels": Score("active channels of the latents", "channels", "neither"),
    "perceptual": Score("perceptual distance of training images", "distance", "lower"),
    "commitment": Score("distance to the codes", "distance", "neither"),
    "equivariance": Score("distance of moved latents' images", "distance", "neither"),
    "adaptive_weight": Score("adaptive weight of the adversarial loss", "factor", "neither"),
    "test_fid": Score("Fréchet inception distance of samples", "features squared", "lower"),
    "sample_diversity": Score("diversity of samples, 1 is the data's", "share of the data's", "neither"),
    "active_units": Score("active units", "latent dimensions", "neither"),
}


# Of tokenizers: where no ELBO is beside it, the reconstruction is a distance.
DISTANCES = {
    "reconstruction": Score("distance of reconstructions of training images", "distance", "lower"),
    "test_reconstruction": Score("distance of reconstructions", "distance", "lower"),
    "kl": Score("KL divergence of training images, before its weight", "nats", "neither"),
    "test_kl": Score("KL divergence, before its weight", "nats", "neither"),
}


def explain_score(name: str, beside: Collection[str] = ("elbo",)) -> Score:
    """The words for a number of the log; its own name, without a better end, where there are none.

    ``beside`` are the names of those that were logged with it.
    """
    bounded = any(other in ("elbo", "test_elbo") for other in beside)
    for beginning, found in SCORES.items() if bounded else {**DISTANCES, **SCORES, **DISTANCES}.items():
        if name.startswith(beginning):
            return found
    return Score(name, "", "neither")
