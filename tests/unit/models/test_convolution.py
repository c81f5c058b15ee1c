import torch
from torch import nn

from chibit.models.convolution import ConvolutionalEncoder


def test_features_are_those_of_the_layers_one_by_one():
    encoder = ConvolutionalEncoder((4, 84, 84), 16, final=nn.ReLU)
    pictures = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    one, two, three = (layer for layer in encoder.convolutions if isinstance(layer, nn.Conv2d))
    x = torch.relu(one(pictures.float() / 255))
    assert x.shape == (3, 32, 20, 20)
    x = torch.relu(two(x))
    assert x.shape == (3, 64, 9, 9)
    x = torch.relu(three(x))
    assert x.shape == (3, 64, 7, 7)
    torch.testing.assert_close(encoder(pictures), torch.relu(encoder.linear(x.flatten(1))))
    assert encoder.width == 16


def test_steps_of_a_window_are_encoded_each_by_itself():
    encoder = ConvolutionalEncoder((4, 84, 84), 8)
    pictures = torch.randint(0, 256, (2, 3, 4, 84, 84), dtype=torch.uint8)
    features = encoder(pictures)
    assert features.shape == (2, 3, 8)
    torch.testing.assert_close(features[1, 2], encoder(pictures[1, 2][None])[0])
