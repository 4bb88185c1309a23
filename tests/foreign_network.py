"""A kernel network as somebody else would write it, outside the package, and broken variants.

Nothing here is imported by the package: tests put this folder on the path and name what is here on
the command line, as a user would.
"""

import torch
from torch import nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network import Decoded, Features, KernelNetwork

NEEDS = Needs(
    ("spot", "blot"),
    (64, 96),
    num_queries=6,
    width=8,
    scores="softmax",
    mask_threshold=0.4,
    channel_order="bgr",
)


class Spots(KernelNetwork):
    """Softmax scores, BGR, another threshold: everything that MobileInst is not."""

    def __init__(self, needs=NEEDS):
        super().__init__(needs)
        layers = []
        for channels in (3, 8, 8):
            layers += [nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()]
        self.stem = nn.Sequential(*layers)
        self.attend = nn.Conv2d(8, needs.num_queries, 1)
        self.classes = nn.Linear(8, needs.num_classes + 1)
        self.kernels = nn.Linear(8, 8)

    def features(self, image):
        return Features(self.stem(self.normalise(image)))

    def decode(self, features):
        x = features.mask_features
        weights = self.attend(x).flatten(2).softmax(-1)
        seen = torch.matmul(weights, x.flatten(2).transpose(1, 2))
        return Decoded(self.classes(seen), None, self.kernels(seen))


class Picks(Spots):
    """Every place of its map proposes an instance, and the best twenty are taken."""

    def __init__(self):
        super().__init__(Needs(**{**vars(NEEDS), "num_queries": 20}))
        self.classes = nn.Conv2d(8, 3, 3, padding=1)
        self.kernels = nn.Conv2d(8, 8, 3, padding=1)

    def decode(self, features):
        x = features.mask_features
        logits, kernels = (
            head(x).flatten(2).transpose(1, 2) for head in (self.classes, self.kernels)
        )
        worth = logits.softmax(-1)[..., :-1].amax(-1)
        best = worth.topk(self.needs.num_queries, dim=1).indices.unsqueeze(2)
        return Decoded(
            logits.gather(1, best.expand(-1, -1, 3)),
            None,
            kernels.gather(1, best.expand(-1, -1, 8)),
        )


def sized(input_size=(64, 96)):
    return Spots(Needs(**{**vars(NEEDS), "input_size": input_size}))


def raises():
    raise KeyError("no such file of mine")


def leaves():
    raise SystemExit(3)


def bare():
    return nn.Linear(1, 1)


def deaf(input_size=None):
    return Spots()


class Narrow(Spots):
    def decode(self, features):
        found = super().decode(features)
        return found._replace(kernels=found.kernels[..., :4])


class Few(Spots):
    def decode(self, features):
        found = super().decode(features)
        return found._replace(class_logits=found.class_logits[..., :2])


class Double(Spots):
    def features(self, image):
        return Features(super().features(image).mask_features.double())


class More(Spots):
    def decode(self, features):
        return (*super().decode(features), "more")


class Follows(Spots):
    def decode(self, features):
        found = super().decode(features)
        if features.mask_features.mean() > 100:
            return found._replace(kernels=-found.kernels)
        return found


class Infinite(Spots):
    def decode(self, features):
        found = super().decode(features)
        return found._replace(kernels=found.kernels / 0)


class Coarse(Spots):
    def features(self, image):
        return Features(nn.functional.max_pool2d(super().features(image).mask_features, 2))


class Unlike(Spots):
    def reuse_features(self, image):
        return self.features(image).mask_features + 1


class Unmade(KernelNetwork):
    def __init__(self):
        super().__init__(NEEDS)


class NoQuality(Spots):
    def __init__(self):
        super().__init__(Needs(**{**vars(NEEDS), "scores": "quality"}))
        self.classes = nn.Linear(8, 2)


class Renamed(Spots):
    """Its published files say ``body.`` for ``stem.`` and hold an optimiser's state."""

    def own_name(self, name):
        return None if name.startswith("step") else name.replace("body.", "stem.")


class Beside(Spots):
    """One output more than the contract has."""

    def features(self, image):
        seen = super().features(image).mask_features
        return Features(seen, context=(seen,))


class Chance(Spots):
    """Every run gives other kernels."""

    def decode(self, features):
        found = super().decode(features)
        return found._replace(kernels=found.kernels + torch.rand_like(found.kernels))


class Spoils(Spots):
    """Writes into the picture that it is given."""

    def normalise(self, image):
        return super().normalise(image.mul_(0.5))


class Whole(Spots):
    def decode(self, features):
        found = super().decode(features)
        return found._replace(kernels=found.kernels.long())


class Listed(Spots):
    def features(self, image):
        return [super().features(image).mask_features]


class Loud(Spots):
    def __init__(self):
        super().__init__()
        print("built")

    def decode(self, features):
        print("decoding")
        return super().decode(features)


def wants_more(needed):
    return Spots()


def endless():
    return endless()


class Text(Spots):
    def decode(self, features):
        raise ValueError("\x1b[31mfirst line\nsecond line")
