"""How the authors of the published networks name, wrap and split their weights, and where each belongs here.

Names as the code of the repositories below writes them. On the right, `head` is the thin part that every task gets
its own copy of; the rest is a path inside our network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vifa_training.networks.swinfusion import EXTRACTION_BLOCKS, FUSION_BLOCKS, FUSIONS, RECONSTRUCTION_BLOCKS

Places = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """One network's published checkpoint.

    Attributes:
        repository: whose code reads and writes it.
        files: what its files hold, one name a file.
        modules: their module or tensor -> ours; several of ours where theirs is these, stacked along the first axis.
        wrappers: names under which a file may hold the weights, where they are not at its top.
        unused: regular expression of a whole name -> why nothing here takes that tensor.
        remarks: (name, value) of something beside the weights -> what a user must know if it is so.
    """

    repository: str
    files: tuple[str, ...]
    modules: Mapping[str, str | tuple[str, ...]]
    wrappers: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[tuple[str, object], str] = field(default_factory=dict)

    def places(self, ours: Iterable[str]) -> Places:
        """Their name of every tensor -> our names (`head.` for any task's head) of what it holds."""
        names, places = list(ours), {}
        for theirs, modules in self.modules.items():
            targets = (modules,) if isinstance(modules, str) else modules
            for name in names:
                if name == targets[0] or name.startswith(targets[0] + "."):
                    end = name.removeprefix(targets[0])
                    places[theirs + end] = tuple(target + end for target in targets)
        return places


DIDFUSE = Layout(
    repository="github.com/Zhaozixiang1228/IVIF-DIDFuse",
    files=("encoder", "decoder"),
    wrappers=("weight",),
    modules={
        "cov1.cov1.1": "backbone.first.0",  # after a padding layer, which has no weights
        "cov1.cov1.2": "backbone.first.1",
        "cov1.cov1.3": "backbone.first.2",
        "cov2.cov2": "backbone.second",
        "cov3.cov3": "backbone.base",
        "cov4.cov4": "backbone.detail",
        "cov5.cov5": "backbone.decoder1",
        "cov6.cov6": "head.hidden",
        "cov7.cov7.1": "head.output.0",
        "cov7.cov7.2": "head.output.1",
    },
)

PIAFUSION = Layout(
    repository="github.com/linklist2/PIAFusion_pytorch",
    files=("network",),
    modules={
        "encoder.vi_conv1": "backbone.visible.0",
        "encoder.ir_conv1": "backbone.thermal.0",
        **{f"encoder.vi_conv{i + 1}.conv.1": f"backbone.visible.{i}" for i in range(1, 5)},
        **{f"encoder.ir_conv{i + 1}.conv.1": f"backbone.thermal.{i}" for i in range(1, 5)},
        **{f"decoder.conv{i + 1}.conv.1": f"backbone.decoder.{i}" for i in range(3)},
        "decoder.conv4.conv.1": "head.hidden",
        "decoder.conv5": "head.output",
    },
)

TARDAL = Layout(
    repository="github.com/JinyuanLiu-CV/TarDAL",
    files=("generator",),
    wrappers=("fuse", "g"),  # what version 1 and version 0 save while they train; published files have neither
    modules={
        "encoder": "backbone.first",
        "dense": "backbone.dense",
        "fuse.0": "backbone.funnel1",
        "fuse.1": "backbone.funnel2",
        "fuse.2": "head.hidden",
        "fuse.3.0": "head.output",
    },
    remarks={
        ("use_eval", False): "its authors run these weights with batch norms in training mode (use_eval is false): "
        "normalised by each image's own statistics. Here the stored statistics are used, and fused images differ"
    },
)


def _swin_block(theirs: str, ours: str, modality: str = "") -> dict[str, str | tuple[str, ...]]:
    """A block's modules; `modality` ends their names in a block that both modalities share (`_A`, `_B`)."""
    attention, mine = f"{theirs}.attn{modality}", f"{ours}.attention"
    query = {f"{attention}.q": f"{mine}.query", f"{attention}.kv": f"{mine}.key_value"}
    return {
        f"{theirs}.norm1{modality}": f"{ours}.norm1",
        f"{attention}.relative_position_bias_table": f"{mine}.position_bias",
        **(query if modality else {f"{attention}.qkv": (f"{mine}.query", f"{mine}.key_value")}),
        f"{attention}.proj": f"{mine}.project",
        f"{theirs}.norm2{modality}": f"{ours}.norm2",
        f"{theirs}.mlp{modality}.fc1": f"{ours}.perceptron.0",
        f"{theirs}.mlp{modality}.fc2": f"{ours}.perceptron.2",
    }


def _swinfusion_modules() -> dict[str, str | tuple[str, ...]]:
    """Their A is the infrared image and their B the luma (folders IR and VI_Y of their test)."""
    modules: dict[str, str | tuple[str, ...]] = {
        "conv_first1_A": "backbone.shallow1",  # of both images: the forward pass of B calls those of A
        "conv_first2_A": "backbone.shallow2",
        "patch_embed.norm": "backbone.embedding_norm",
        "norm_Re": "backbone.reconstructed_norm",
        "conv_after_body_Fusion": "backbone.merge",
        "conv_last1": "backbone.narrow",
        "conv_last2": "head.hidden",
        "conv_last3": "head.output",
    }
    for letter, modality in (("A", "thermal"), ("B", "visible")):
        modules[f"norm_Ex_{letter}"] = f"backbone.extracted_norm_{modality}"
        modules[f"norm_Fusion_{letter}"] = f"backbone.fused_norm_{modality}"
        for i in range(EXTRACTION_BLOCKS):
            theirs = f"layers_Ex_{letter}.0.residual_group.blocks.{i}"
            modules |= _swin_block(theirs, f"backbone.extract_{modality}.{i}")
        for stage in range(FUSIONS):
            theirs, ours = f"layers_Fusion.{stage}.residual_group", f"backbone.fusions.{stage}"
            for i in range(FUSION_BLOCKS):
                modules |= _swin_block(f"{theirs}_{letter}.blocks.{i}", f"{ours}.{modality}.{i}")
                modules |= _swin_block(f"{theirs}.blocks.{i}", f"{ours}.cross_{modality}.{i}", f"_{letter}")
    for i in range(RECONSTRUCTION_BLOCKS):
        modules |= _swin_block(f"layers_Re.0.residual_group.blocks.{i}", f"backbone.reconstruct.{i}")
    return modules


SWINFUSION = Layout(
    repository="github.com/Linfeng-Tang/SwinFusion",
    files=("network",),
    wrappers=("params",),
    modules=_swinfusion_modules(),
    unused={
        r"conv_first[12]_B\.(weight|bias)": "their forward pass never uses it",
        r".*\.attn_mask": "computed here from the image's size",
        r".*\.relative_position_index": "computed here from the window's size",
    },
)

LAYOUTS = {"didfuse": DIDFUSE, "piafusion": PIAFUSION, "swinfusion": SWINFUSION, "tardal": TARDAL}
