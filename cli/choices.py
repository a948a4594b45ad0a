"""Names and defaults that `--help` shows; a test asserts that they equal the library's."""

DATASETS = (
    "mnist5k",
    "static_mnist",
    "dynamic_mnist",
    "omniglot",
    "caltech101",
    "frey_faces",
    "histopathology",
    "fashion_mnist",
    "cifar10",
)
BINARIZATIONS = ("none", "threshold", "dynamic")
MODELS = ("vae", "hvae", "convvae", "convhvae", "pixelhvae")
PRIORS = ("standard", "mog", "vamp", "vamp-data", "vamp-weighted")
LIKELIHOODS = ("bernoulli", "bernoulli-clipped", "logistic", "logistic-paper")
OBJECTIVES = ("elbo", "iwae")
PRESETS = ("paper",)
PSEUDO_INPUT_INITS = ("normal", "images")
SPLITS = ("train", "validation", "test")

DATASET = "mnist5k"
MODEL = "vae"
PRIOR = "vamp"
EPOCHS = 2000
BATCH_SIZE = 100
WARMUP = 100
PATIENCE = 50
SEED = 0
OBJECTIVE = "elbo"
IMPORTANCE_SAMPLES = 5
PSEUDO_INPUT_INIT = "normal"
EVALUATION_SAMPLES = 5000


def listed(names: tuple[str, ...]) -> str:
    """Names for a help text."""
    return ", ".join(names)
