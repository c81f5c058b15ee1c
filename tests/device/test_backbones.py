"""Models of transformers on a device that is not the CPU."""

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.samplers.placement import place
from chibit.models.huggingface import HuggingFaceBackbone
from pretend_device import pretend_device
from sequence_toys import WITHOUT_SHAPE, target_return_data

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", ["GPT2Config", "LlamaConfig"])
def test_a_model_of_transformers_takes_the_librarys_kernel_there_and_gives_the_same(name):
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}
    if name == "LlamaConfig":
        sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = getattr(transformers, name)(vocab_size=40, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    backbone = HuggingFaceBackbone(model).eval()
    kinds = backbone.body.config
    embeddings = torch.randn(2, 7, 24)
    with torch.no_grad():
        expected, maps = backbone(embeddings, return_attentions=True)
    assert kinds._attn_implementation == "eager"
    with pretend_device() as seen:
        backbone.to("pretend")
        hidden = backbone(embeddings.to("pretend"))
        assert kinds._attn_implementation == "sdpa"
        torch.testing.assert_close(hidden.cpu(), expected, rtol=1e-4, atol=1e-5)
        seen.clear()
        backbone(embeddings.to("pretend")).sum().backward()
        assert sum(seen.syncs.values()) == 1, "transformers looks at the positions, and nothing else waits"
        _, there = backbone(embeddings.to("pretend"), return_attentions=True)
        torch.testing.assert_close(there[0].cpu(), maps[0], rtol=1e-4, atol=1e-5)
    assert kinds._attn_implementation == "eager"


@pytest.mark.parametrize("tuning", ["full", "frozen", "lora"])
def test_the_sequence_agent_steps_and_acts_around_a_model_of_transformers_there(tuning, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=40, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    data = target_return_data()
    settings = {**WITHOUT_SHAPE, "initializer": f"hf:{tmp_path}", "tuning": tuning}
    with pretend_device() as seen:
        agent = make_agent(AGENTS["dt"].config(**settings), data.spec, Runtime(device="pretend:0"))
        sampler = place(agent.sampler(data, np.random.default_rng(0)), torch.device("pretend:0"))
        for _ in range(2):
            seen.clear()
            agent.update(sampler.sample())
            assert sum(seen.syncs.values()) == sum(seen.copies.values()) == 1
        agent.check()
        policy = agent.policy([1.0])
        policy.reset(2)
        assert np.isfinite(policy.act(data.observations[:2])).all()
