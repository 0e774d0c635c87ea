"""Tiny random models and factors of any size."""

import pytest
import torch


def _llama(layers=2):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
        )
    )


def _gpt2(layers=2):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=16, n_layer=layers, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0)
    )


def _mixtral(layers=2):
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=2,
            max_position_embeddings=32,
        )
    )


def _gpt_oss(layers=2):
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(
        GptOssConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            num_local_experts=4,
            num_experts_per_tok=2,
            max_position_embeddings=32,
        )
    )


_KINDS = {"llama": _llama, "gpt2": _gpt2, "mixtral": _mixtral, "gpt-oss": _gpt_oss}


@pytest.fixture(scope="session")
def make_model():
    """A random model of the given kind; the same arguments give the same weights."""

    def make(kind, *, dtype=torch.float32, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _KINDS[kind](**options).to(dtype).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_pair():
    """A random (B, A) with ||BA||_2 about one."""

    def make(rows, columns, rank, seed=0):
        generator = torch.Generator().manual_seed(seed)
        left = torch.randn(rows, rank, generator=generator) / rows**0.5
        return left, torch.randn(rank, columns, generator=generator) / columns**0.5

    return make


@pytest.fixture(scope="session")
def make_factors():
    """One-sided factors whose B is random instead of zero."""
    from geonb.adapters.factors import OneSidedFactors

    def make(rows, columns, rank, seed=0):
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(columns, rank, generator=generator))[0].mT.contiguous()
        factors = OneSidedFactors(basis, rows, budget=1.0)
        with torch.no_grad():
            factors.B.copy_(torch.randn(rows, rank, generator=generator) / rows**0.5)
        return factors

    return make


@pytest.fixture(scope="session")
def tokens():
    return torch.randint(1, 64, (3, 12), generator=torch.Generator().manual_seed(5))
