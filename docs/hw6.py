# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Homework 6 with `hw6core`
#
# All parts of the assignment, using only the library. By default this notebook draws its own data and runs on a laptop
# in minutes. **Results on synthetic data only show how it is done; they say nothing about the real task.** To use the
# real data, change the line `DATA = ...` below. On Colab, choose a GPU (*Runtime, Change runtime type*) and install the
# library from a checkout first: `%pip install -q ./hw6 matplotlib`.
#
# Every number here comes from one short training with one seed. `make benchmark PROFILE=full` trains all parts, with
# several seeds.
#
# (To change the notebook, edit `docs/hw6.py`; `make notebook` executes it and writes the pages to hand in.)

# %%
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from torch import nn
from torch.nn import functional as F

from hw6core import (
    ClassificationTask,
    ColorizationTask,
    DiceLoss,
    FeatureTask,
    Schedule,
    SegmentationTask,
    Split,
    UNet,
    dice_per_class,
    load_colorization,
    load_endovis,
    load_fashion_mnist,
    mean_dice,
    predict,
    train,
    transfer,
    vgg16,
)
from hw6core.data.augment import Augmentation, augment
from hw6core.data.fetch import fetch_endovis, fetch_fashion_mnist
from hw6core.data.synthetic import proxy_images, synthesize
from hw6core.device import autocast, default_precision, keep_freed_memory
from hw6core.errors import DataError
from hw6core.metrics import accuracy, majority_class
from hw6core.models import parameter_count, start_from_frequencies, start_from_shifts
from hw6core.provenance import data_kind
from hw6core.seeding import seed_everything
from hw6core.tasks import (
    FASHION_MEAN,
    FASHION_STD,
    InstrumentCellsTask,
    instrument_cells,
    mean_colour,
    resize_images,
    unit_range,
)
from hw6core.training import forward

# JPEG, because PNG figures would make the notebook twice as large.
# %config InlineBackend.figure_formats = ["jpeg"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "pil_kwargs": {"quality": 85}}

# %% tags=["parameters"]
DATA = "synthetic"  # or a folder for the real data, such as "data"; it is downloaded if the folder does not exist
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AMOUNT = "full" if DEVICE == "cuda" else "quick"  # of training; "tiny" is for testing the notebook
VGG16_WEIGHTS = "imagenet"  # downloads torchvision's weights; or a file with them

# %%
AMOUNTS = {
    "tiny": {
        "unet": {"size": (16, 24), "epochs": 2},
        "colorization": {"size": (16, 24), "epochs": 1},
        "vgg16": {"samples": 20, "batch_size": 10, "epochs": 1, "new_task_epochs": 1},
    },
    "quick": {
        "unet": {"size": (24, 32), "epochs": 18},
        "colorization": {"size": (32, 40), "epochs": 6},
        "vgg16": {"samples": 2_200, "batch_size": 32, "epochs": 2, "new_task_epochs": 2},
    },
    "full": {
        "unet": {"size": (96, 120), "epochs": 60},
        "colorization": {"size": (96, 120), "epochs": 20},
        "vgg16": {"samples": 60_000, "batch_size": 128, "epochs": 10, "new_task_epochs": 10},
    },
}
amount, device = AMOUNTS[AMOUNT], torch.device(DEVICE)
precision = default_precision(device)  # bfloat16 if the hardware supports it
keep_freed_memory()  # trains VGG16 on a CPU in two thirds of the time
SEED = 0
results = {}


def note(what, score, without_learning):
    """Keep a result for the table at the end."""
    results[what] = score, without_learning
    print(f"{what} {score:.4f} (without learning {without_learning:.4f})")


root = Path(".cache/synthetic" if DATA == "synthetic" else DATA)
if DATA == "synthetic":
    synthesize(root)
elif not (root / "fashion_mnist").exists():  # it is downloaded last, so a failed download is repeated
    fetch_endovis(root)
    fetch_fashion_mnist(root)
print(f"{data_kind(root)} data, {AMOUNT} training on {device} in {precision}, torch {torch.__version__}")

# %% [markdown]
# ## 1 The U-Net on EndoVis 2017
#
# Frames of an operation, with a mask that gives the class of each pixel: one of seven instruments, or 0 for background.

# %%
frames = {split: load_endovis(root, split) for split in ("train", "validation", "test")}
names = frames["train"].class_names
for split, part in frames.items():
    print(f"{split:10}  images {tuple(part.images.shape)} {part.images.dtype}, masks {tuple(part.masks.shape)}")
print(dict(enumerate(names)))

# %%
CLASS_COLOURS = ListedColormap(["black", *plt.get_cmap("Set2").colors[:7]])


def show(rows, titles=()):
    """Plot rows of images, (3, H, W), and masks, (H, W)."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(1.7 * len(rows[0]), 1.4 * len(rows)), dpi=70, squeeze=False
    )
    for row_axes, row in zip(axes, rows, strict=True):
        for ax, image in zip(row_axes, row, strict=True):
            if image.ndim == 3:
                ax.imshow(image.permute(1, 2, 0).cpu())
            else:
                ax.imshow(image.cpu(), cmap=CLASS_COLOURS, vmin=0, vmax=7, interpolation="nearest")
            ax.axis("off")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    plt.show()


show([frames["train"].images[:4], frames["train"].masks[:4]])

# %% [markdown]
# ### Dice by hand
#
# For a frame and a class, Dice is twice the number of pixels that prediction and target share, divided by the sum of
# their pixels. A class that is absent from the target, here class 2, either scores 1 if it was not predicted and 0 if
# it was (the **course Dice**), or is ignored (the **present Dice**).

# %%
target = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
prediction = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
show([[target, prediction]], ["target", "prediction"])

by_hand = []
for number in range(3):
    predicted, shown = prediction == number, target == number
    common, total = int((predicted & shown).sum()), int(predicted.sum() + shown.sum())
    by_hand.append(2 * common / total if total else 1.0)
    print(f"class {number}: 2 * {common} / {total}" if total else f"class {number}: absent from both", by_hand[-1])

by_library = dice_per_class(prediction[None], target[None], num_classes=3)
assert by_library[0].tolist() == by_hand
print(f"the library: {by_library[0].tolist()}")
print(f"course Dice {mean_dice(prediction[None], target[None], 3):.4f}")
print(f"present Dice {mean_dice(prediction[None], target[None], 3, absent='ignore'):.4f}")

# %% [markdown]
# The **Dice loss** is one minus the same expression with probabilities instead of classes, so that it has a gradient.
# The more certain the prediction, the closer the loss is to one minus the Dice.

# %%
for scale in (1, 10, 100):
    logits = scale * F.one_hot(prediction[None], 3).permute(0, 3, 1, 2).float()
    print(f"logits of {scale:3}: Dice loss {DiceLoss(smoothing=1e-6)(logits, target[None]):.4f}")
print(f"one minus the course Dice: {1 - sum(by_hand) / 3:.4f}")

# %% [markdown]
# ### The network

# %%
model = UNet(num_classes=len(names))
images = unit_range(frames["train"].images[:1])
print(f"{tuple(images.shape)} -> {tuple(model(images).shape)}, {parameter_count(model):,} parameters")

# %% [markdown]
# ### 1(a) Baseline: Dice loss, no augmentation
#
# The network is trained on small frames; scores are computed at the full size of the masks. Each epoch is scored on the
# validation frames, the weights of the best epoch are kept, and the test frames are used once.
#
# On the real data the loss averages over the classes that occur in a batch. Averaged over all classes, it teaches the
# network in most batches to give a rare instrument no probability at all, and the rarest are lost for good. Synthetic
# data has no rare instruments, and there the average over all classes scores better.


# %%
def segmentation_split(part):
    """Frames at the working size of the network, masks at full size."""
    return Split(resize_images(part.images, amount["unet"]["size"]).to(device), part.masks.to(device))


training, validation, test = (segmentation_split(frames[split]) for split in ("train", "validation", "test"))


def train_unet(part, augmentation=None, start=None):
    """Train and score on the test frames; ``start``: initial weights from a U-Net with another head."""
    seed_everything(SEED)
    model = UNet(num_classes=len(names))
    if start is not None:
        transfer(start, model, head="head", source="colorization's weights")
    start_from_frequencies(model.head, training.targets)
    model.to(device, memory_format=torch.channels_last)
    loss = DiceLoss(pool="batch", absent="ignore" if data_kind(root) == "real" else "course")
    task = SegmentationTask(len(names), loss, augmentation, minimum_class_pixels=300)
    schedule = Schedule(amount["unet"]["epochs"], batch_size=10, learning_rate=3e-3, weight_decay=1e-4)
    trained = train(model, task, training, validation, schedule, seed=SEED, precision=precision)
    predictions, _ = predict(model, task, test, precision=precision)
    for name, absent in (("course Dice", "course"), ("present Dice", "ignore")):
        score, background = (
            mean_dice(answer, test.targets, len(names), absent) for answer in (predictions, predictions * 0)
        )
        note(f"{part} {name}", score, background)
    return trained.history, predictions


def plot(histories, curves):
    """Plot each curve in its own panel, for all parts."""
    figure, axes = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.3), dpi=70, squeeze=False)
    for ax, curve in zip(axes[0], curves, strict=True):
        for part, history in histories.items():
            epochs = [entry["epoch"] for entry in history]
            ax.plot(epochs, [entry[curve] for entry in history], marker=".", label=part)
        ax.set_title(curve.replace("_", " "), fontsize=9)
        ax.set_xlabel("epoch", fontsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=7)
    figure.tight_layout()
    plt.show()


CURVES = ("train_loss", "validation_loss", "course_dice", "present_dice")
histories = {}
histories["1(a)"], predictions = train_unet("1(a)")
plot(histories, CURVES)

# %%
show(
    [[frames["test"].images[n], test.targets[n], predictions[n]] for n in range(3)],
    ["frame", "target", "prediction of 1(a)"],
)

# %% [markdown]
# ### 1(b) With paired augmentation
#
# Flips, rotation, zoom and shift change a frame and its mask together; brightness and contrast change only the frame.

# %%
augmentation = Augmentation(
    horizontal_flip=0.5, rotation_degrees=10, scale=0.1, shift=0.05, brightness=0.1, contrast=0.1
)
images, masks = augment(
    unit_range(frames["train"].images[:1]).expand(4, -1, -1, -1),
    frames["train"].masks[:1].expand(4, -1, -1),
    augmentation,
    torch.Generator().manual_seed(SEED),
)
show(
    [
        [unit_range(frames["train"].images[0]), *images],
        [frames["train"].masks[0], *masks],
    ],
    ["original", *["augmented"] * 4],
)

# %%
histories["1(b)"], _ = train_unet("1(b)", augmentation)
plot(histories, CURVES)

# %% [markdown]
# ### 1(c) Colorization: the same network, grey to RGB
#
# No masks are needed: the target is the colours of the frame. The network predicts the difference between colour and
# grey. The best prediction without learning is the same colour cast for all frames.

# %%
colorization = {}
for split in ("train", "validation"):
    part = load_colorization(root, split)
    pairs = torch.cat([part.grays, part.images], 1).to(device)  # (N, 4, H, W): grey before RGB
    colorization[split] = Split(pairs, pairs)

seed_everything(SEED)
model = UNet(num_classes=3)
nn.init.zeros_(model.head.weight)  # the first prediction is the grey frame itself
model.to(device, memory_format=torch.channels_last)
task = ColorizationTask(amount["colorization"]["size"], Augmentation(horizontal_flip=0.5))
schedule = Schedule(amount["colorization"]["epochs"], batch_size=10, learning_rate=3e-3, weight_decay=1e-4)
trained = train(
    model, task, colorization["train"], colorization["validation"], schedule, seed=SEED, precision=precision
)
colorization_weights = trained.best_state

shown = colorization["validation"].targets
errors, _ = predict(model, task, colorization["validation"], precision=precision)
cast = mean_colour(colorization["train"].targets).expand(len(shown), -1, -1, -1)
note("1(c) mean squared error", float(errors.mean()), float(task.frame_errors(cast, shown).mean()))
plot({"1(c)": trained.history}, ("train_loss", "validation_mse"))

# %%
with torch.inference_mode():
    outputs, _ = forward(model, task, Split(shown[:3], shown[:3]), precision=precision)
recolored = task.recolor(outputs, shown[:3, :1])
show(
    [[frame[:1].expand(3, -1, -1), colours, frame[1:]] for frame, colours in zip(shown[:3], recolored, strict=True)],
    ["grey", "colours of 1(c)", "colours of the frame"],
)

# %% [markdown]
# ### 1(d) Transfer: 1(b) from the weights of 1(c)
#
# All layers but the head start from the weights of the colorization.

# %%
histories["1(d)"], _ = train_unet("1(d)", augmentation, start=colorization_weights)
plot(histories, CURVES)

# %% [markdown]
# ## 2 VGG16 on Fashion-MNIST
#
# Grey garments of 28x28 pixels in ten classes; a border of 2 pixels pads them to 32x32, the minimum for VGG16. One
# training image in ten is used for validation.

# %%
garments = {"train": load_fashion_mnist(root, train=True), "test": load_fashion_mnist(root, train=False)}
order = torch.randperm(len(garments["train"].images), generator=torch.Generator().manual_seed(SEED))
order = order[: amount["vgg16"]["samples"]]
held_out = len(order) // 10


def garment_split(part, chosen=slice(None)):
    return Split(F.pad(part.images[chosen], (2, 2, 2, 2)).to(device), part.labels[chosen].to(device))


garment_training = garment_split(garments["train"], order[held_out:])
garment_validation = garment_split(garments["train"], order[:held_out])
garment_test = garment_split(garments["test"])
labels = garments["train"].class_names
majority = majority_class(garment_training.targets, len(labels))
majority_accuracy = accuracy(torch.full_like(garment_test.targets, majority), garment_test.targets)

first = [int((garment_test.targets == number).nonzero()[0]) for number in range(10)]
pictures = [garment_test.inputs[n].expand(3, -1, -1) for n in first]
show([pictures[:5], pictures[5:]])
print(", ".join(labels))

# %% [markdown]
# ### 2(a) From scratch
#
# VGG16 has no batch norm: from torchvision's random weights it needs hundreds of steps before its features differ
# between images. A short training starts from random weights whose features do (`hw6core.models.start_from_shifts`).


# %%
def train_vgg16(model, task, training, validation, epochs, learning_rate, batch_size=amount["vgg16"]["batch_size"]):
    model.to(device, memory_format=torch.channels_last)
    schedule = Schedule(epochs, batch_size, learning_rate, weight_decay=1e-2)
    return train(model, task, training, validation, schedule, seed=SEED, precision=precision).history


seed_everything(SEED)
task = ClassificationTask(FASHION_MEAN, FASHION_STD, Augmentation(horizontal_flip=0.5))
model = vgg16(num_classes=10)
if AMOUNT != "full":
    start_from_shifts(model, task.normalise(unit_range(garment_training.inputs[:64].cpu())))
history = train_vgg16(model, task, garment_training, garment_validation, amount["vgg16"]["epochs"], learning_rate=1e-4)
predictions, _ = predict(model, task, garment_test, precision=precision)
note("2(a) accuracy", accuracy(predictions, garment_test.targets), majority_accuracy)
scratch_weights = model.state_dict()
plot({"2(a)": history}, ("train_loss", "accuracy"))

# %% [markdown]
# ### 2(b) Pre-trained, all frozen but the last layer
#
# The pre-trained weights are those of ImageNet. If they are not available, VGG16 is first trained on drawn shapes
# (discs, rings, stars and so on) as a stand-in. **The result then says nothing about pre-training on ImageNet.**

# %%
seed_everything(SEED)
pretrained_task = ClassificationTask()  # normalises images with ImageNet's statistics
try:
    model, origin = vgg16(num_classes=10, weights=VGG16_WEIGHTS, freeze_features=True), str(VGG16_WEIGHTS)
except DataError as error:
    origin = "drawn shapes"
    print(f"No ImageNet weights available ({str(error).partition(';')[0]}).")
    print("Using weights trained on drawn shapes instead.")
    count = min(amount["vgg16"]["samples"], 2_000)
    images, outlines = (torch.from_numpy(array).to(device) for array in proxy_images(count, SEED))
    model = vgg16(num_classes=10, freeze_features=True).requires_grad_(True)  # train all layers, without dropout
    start_from_shifts(model, pretrained_task.normalise(unit_range(images[:64].cpu())))
    shapes = (
        Split(images[count // 10 :], outlines[count // 10 :]),
        Split(images[: count // 10], outlines[: count // 10]),
    )
    history = train_vgg16(model, pretrained_task, *shapes, epochs=1, learning_rate=2e-5, batch_size=16)
    print(f"Their accuracy on the shapes is {history[-1]['accuracy']:.3f}.")
pretrained_weights = model.to(device, memory_format=torch.channels_last).state_dict()

# %% [markdown]
# The features of the frozen layers are the same in every epoch: they are computed once, and the last layer is trained
# on them.


# %%
@torch.inference_mode()
def features(split):
    """The input of the last layer: (N, 4096)."""
    parts = []
    for images in split.inputs.split(250):
        with autocast(device, precision):
            inputs = pretrained_task.normalise(unit_range(images)).contiguous(memory_format=torch.channels_last)
            parts.append(model.penultimate(inputs).float())
    return Split(torch.cat(parts), split.targets)


last_layer = nn.Linear(4096, 10)
history = train_vgg16(
    last_layer,
    FeatureTask(),
    features(garment_training),
    features(garment_validation),
    epochs=20 * amount["vgg16"]["epochs"],
    learning_rate=1e-2,
)
predictions, _ = predict(last_layer, FeatureTask(), features(garment_test))
note("2(b) accuracy", accuracy(predictions, garment_test.targets), majority_accuracy)
plot({"2(b)": history}, ("train_loss", "accuracy"))

# %% [markdown]
# ### 2(c) Both fine-tuned on a new task
#
# Which quarters of an EndoVis frame show instruments? Four binary labels, for images that neither network has seen. All
# layers are trained; only the initial weights differ.

# %%
GRID = (2, 2)
SIZE = (32, 40) if AMOUNT != "full" else (64, 80)
cells_training, cells_validation, cells_test = (
    Split(resize_images(part.images, SIZE).to(device), part.masks.to(device)) for part in frames.values()
)
known, truth = (instrument_cells(split.targets, GRID) for split in (cells_training, cells_test))
often = (known.double().mean(0) > 0.5).long().expand_as(truth)

cells_histories = {}
for part, weights, (mean, std) in (
    ("2(c) from 2(a)", scratch_weights, (FASHION_MEAN, FASHION_STD)),
    ("2(c) from 2(b)", pretrained_weights, (pretrained_task.mean, pretrained_task.std)),
):
    seed_everything(SEED)
    model = vgg16(num_classes=math.prod(GRID), freeze_features=True).requires_grad_(True)  # no dropout in either
    transfer(weights, model, head="classifier.6", source=part)
    task = InstrumentCellsTask(mean, std, Augmentation(horizontal_flip=0.5), grid=GRID)
    cells_histories[part] = train_vgg16(
        model, task, cells_training, cells_validation, amount["vgg16"]["new_task_epochs"], learning_rate=5e-5
    )
    predictions, _ = predict(model, task, cells_test, precision=precision)
    note(f"{part} accuracy", accuracy(predictions, truth), accuracy(often, truth))
plot(cells_histories, ("train_loss", "accuracy"))

# %% [markdown]
# ## Results
#
# Each score is listed with that of a constant prediction: background, one colour cast, the most frequent class. Most
# classes are absent from most frames, so predicting only background already has a high course Dice; present Dice tells
# more. Differences of a few hundredths between 1(a), 1(b) and 1(d) mean nothing after one short training with one seed.

# %%
print(f"{data_kind(root)} data, {AMOUNT} training on {device}; pre-trained weights: {origin}\n")
print(f"{'':32}{'trained':>10}{'without learning':>20}")
for part, (score, without) in results.items():
    print(f"{part:32}{score:10.4f}{without:20.4f}")
