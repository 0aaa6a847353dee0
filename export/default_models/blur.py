"""A VAE that starts as the mean colour of every cell, so that it has to learn only the rest.

From random weights it learnt one axis of colour in 1700 steps: no skip connection goes around the norms at the end of
encoder and decoder, and a norm over few channels removes means and contrasts of each frame, which are the picture's
colours. So both norms start near the identity, all residual branches at zero, and the remaining convolutions and
resampling as means over cells and their enlargement.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_COLOURS = 3
_APART = 4.0
_LOG_VARIANCE = -4.0


def start_as_blur(vae: Any) -> None:
    """Sets the weights of an `AutoencoderKLTemporalDecoder` whose levels are all equally wide.

    Each colour x is carried by a pair of channels (x, -x), so that silu(x) - silu(-x) = x undoes the activations before
    the last convolutions. The other channels keep their random weights.
    """
    encoder, decoder = vae.encoder, vae.decoder
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.rpartition(".")[0].endswith(("conv2", "to_out.0")):  # the end of every residual branch
                parameter.zero_()
        channels = list(range(2 * _COLOURS))
        for layer in (encoder.conv_in, decoder.conv_in):
            _clear(layer, 2 * _COLOURS)
            for k in range(_COLOURS):
                layer.weight[2 * k : 2 * k + 2, k, 1, 1] = torch.tensor([1.0, -1.0])
        for block in encoder.down_blocks[:-1]:
            layer = block.downsamplers[0].conv  # diffusers pads it below and to the right only
            _clear(layer, 2 * _COLOURS)
            layer.weight[channels, channels, :2, :2] = 0.25
        for block in decoder.up_blocks[:-1]:
            layer = block.upsamplers[0].conv
            _clear(layer, 2 * _COLOURS)
            layer.weight[channels, channels, 1, 1] = 1
        for layer in (encoder.conv_out, decoder.conv_out):
            _clear(layer, _COLOURS)
            for k in range(_COLOURS):
                layer.weight[k, 2 * k : 2 * k + 2, 1, 1] = torch.tensor([1.0, -1.0])
        latents = vae.config.latent_channels
        encoder.conv_out.weight[latents:] = 0
        encoder.conv_out.bias[latents:] = _LOG_VARIANCE
        nn.init.dirac_(vae.quant_conv.weight)
        vae.quant_conv.bias.zero_()
        _open(encoder.mid_block.resnets[-1].conv2, encoder.conv_norm_out)
        _open(decoder.up_blocks[-1].resnets[-1].spatial_res_block.conv2, decoder.conv_norm_out)


def _clear(layer: Any, outputs: int) -> None:
    layer.weight[:outputs] = 0
    layer.bias[:outputs] = 0


def _open(before: Any, norm: Any) -> None:
    """Makes `norm` start near the identity.

    A group's two channels are shifted by +-b, so that its deviation is about b whatever they carry; the norm's own
    weight b and bias -+b shift them back.
    """
    apart = torch.tensor([_APART, -_APART]).repeat(norm.num_channels // 2)
    before.bias += apart
    norm.weight.fill_(_APART)
    norm.bias.copy_(-apart)
