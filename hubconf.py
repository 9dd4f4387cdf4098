"""Entry points of `torch.hub`: one per registered name, with the arguments of `diffmiczoo.create_model`."""

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors", "einops", "numpy", "PIL", "tqdm"]


def diffmicv2(name, pretrained=True, **options):
    """Builds any model that `diffmiczoo.create_model` can: a registered name, or weights elsewhere.

    Args:
        name: for example "diffmicv2_nano.ham10000"; `torch.hub.list` shows the registered ones. Or
            "hf-hub:ORGANISATION/REPOSITORY[@REVISION]", or "local-dir:PATH" of saved weights.
        pretrained: load the trained weights; without any it is an error, never a random model.
        options: further arguments of `create_model` (num_classes, device, any field of the model's config).

    Example:
        model = torch.hub.load("org/diffmic", "diffmicv2", "diffmicv2_ham10000", trust_repo=True)
        print(model.predict("picture.jpg").top(3))
    """
    from diffmiczoo import create_model

    return create_model(name, pretrained, **options)


def _entry_points():
    from diffmiczoo.zoo.registry import describe, list_models

    def entry_point(name):
        def load(pretrained=True, **options):
            return diffmicv2(name, pretrained, **options)

        load.__name__ = load.__qualname__ = name
        load.__doc__ = (
            f"{describe(name)}\n\n    Args:\n        pretrained: load the trained weights; without any it is an error, "
            "never a random model.\n        options: further arguments of `diffmiczoo.create_model` (num_classes, "
            "device, any\n            field of the model's config).\n"
        )
        return load

    return {name: entry_point(name) for name in list_models()}


globals().update(_entry_points())
