"""`sae_oracle.datasets`, at the address that the first examples taught."""

from sae_oracle.datasets import colour_patches, digits, natural_patches, zca_whitening

__all__ = ["colour_patches", "digits", "natural_patches", "zca_whitening"]
