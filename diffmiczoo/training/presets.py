"""Recipes that fit a model and the number of images: the paper's for paper-sized models, short ones for CPUs."""

from __future__ import annotations

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.complexity import count_parameters

#: Below it a model is made for CPUs; the paper tries 2048 to 8192.
PAPER_LATENT_DIM = 2048

#: Section IV-A: DCG 100 epochs at 2e-4, diffusion 1000 epochs from 1e-3 to 1e-5.
PAPER = Recipe()

#: ChestX-ray14 in the paper: 20 and 100 epochs.
PAPER_CHEST = Recipe(dcg_epochs=20, diffusion_epochs=100)

#: For diffmicv2_nano started from ImageNet encoders; docs/experiments/diffusion-head.md has the measurements.
NANO = Recipe(
    dcg_lr=1e-3,
    diffusion_lr=2e-2,
    encoder_lr=5e-4,
    weight_decay=0.05,
    warmup_epochs=1.0,
    ema_decay=0.99,
    precision="bf16",
    rotation=15.0,
    min_scale=0.7,
    color_jitter=0.1,
)

#: For what is as large as the paper's models and starts from weights that are good already.
PAPER_FINETUNE = Recipe(
    dcg_epochs=20,
    dcg_lr=1e-4,
    diffusion_epochs=100,
    diffusion_lr=5e-4,
    encoder_lr=5e-5,
    weight_decay=0.05,
    warmup_epochs=1.0,
    clip_grad=1.0,
    ema_decay=0.999,
    precision="bf16",
)

#: Training images below a number → batch size, epochs of each of the DCG's streams, epochs of the diffusion. Longer
#: training learns the images by heart, see docs/experiments/gpu.md.
_NANO_SIZES = ((450, 8, 30, 40), (1500, 32, 16, 10), (4000, 32, 14, 12), (10**9, 64, 12, 6))


#: Parameters from which on a plain classifier is fine-tuned with the low rates of paper-sized models.
LARGE = 30_000_000


def preset_recipe(config: DiffMICConfig, images: int = 10**6) -> Recipe:
    """Returns the recipe for a model that starts from ImageNet encoders.

    Args:
        config: the model's; small ones (H below 2048) get a short recipe, others the paper's for this kind of task. A
            plain classifier is trained as a small model is, for as many epochs as all of its stages have together;
            a large one (from 30 million parameters on) at the low rates of `finetune_recipe` for paper-sized models.
            In small models the DCG's streams learn one after the other (`encoder_start="trained"`).
        images: number of training images: few ones need smaller batches and more epochs.
    """
    plain = config.predictor == "classifier"
    if plain and count_parameters(config)["total"] >= LARGE:
        return _filled(PAPER_FINETUNE, images)
    if not plain and config.latent_dim >= PAPER_LATENT_DIM:
        return _filled(PAPER_CHEST if config.task == "multilabel" else PAPER, images)
    batch, dcg, diffusion = next(row[1:] for row in _NANO_SIZES if images < row[0])
    recipe = _filled(NANO.replace(batch_size=batch), images).replace(dcg_epochs=dcg, diffusion_epochs=diffusion)
    if plain:
        recipe = recipe.replace(dcg_epochs=2 * dcg + diffusion, diffusion_epochs=0)
    if config.predictor in ("diffusion", "dcg"):
        recipe = recipe.replace(encoder_start="trained")
    # Smaller batches give noisier gradients.
    return recipe if batch >= 32 else recipe.replace(diffusion_lr=1e-2)


def finetune_recipe(config: DiffMICConfig, images: int = 10**6) -> Recipe:
    """Returns the recipe for a model that was trained on other images: lower learning rates, an average of the weights.

    Args:
        config: the model's.
        images: number of training images.
    """
    # Its encoders have learned already, each for its own task.
    recipe = preset_recipe(config, images).replace(encoder_start="given")
    if recipe.encoder_lr == NANO.encoder_lr:
        return recipe.replace(dcg_lr=5e-4, diffusion_lr=recipe.diffusion_lr / 2, encoder_lr=2e-4)
    return _filled(PAPER_FINETUNE, images)


def _filled(recipe: Recipe, images: int) -> Recipe:
    """Returns a recipe with batches that a handful of images fill."""
    return recipe.replace(batch_size=max(1, min(recipe.batch_size, images)))
