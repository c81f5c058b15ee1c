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


def test_standardized_pictures_are_seen_by_their_contrast_alone():
    """Affine changes of a picture's brightness change nothing; one color is like black, and finite."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 100, (3, 4, 84, 84), generator=generator, dtype=torch.uint8)
    brighter = pictures * 2 + 7
    encoder = ConvolutionalEncoder((4, 84, 84), 8, standardize=True).eval()
    torch.testing.assert_close(encoder(brighter), encoder(pictures), atol=1e-4, rtol=1e-4)
    gray, black = (
        torch.full((2, 4, 84, 84), 87, dtype=torch.uint8),
        torch.zeros(2, 4, 84, 84, dtype=torch.uint8),
    )
    torch.testing.assert_close(encoder(gray), encoder(black), atol=1e-4, rtol=0)
    plain = ConvolutionalEncoder((4, 84, 84), 8)
    plain.load_state_dict(encoder.state_dict())
    assert not torch.allclose(plain(brighter), plain(pictures), atol=1e-2)
    seen = pictures[0].double()
    by_hand = (seen - seen.mean((-2, -1), keepdim=True)) / seen.std((-2, -1), correction=0, keepdim=True)
    features = encoder.linear(encoder.convolutions(by_hand.float()[None]))
    torch.testing.assert_close(encoder(pictures[:1]), features, atol=1e-3, rtol=1e-3)
