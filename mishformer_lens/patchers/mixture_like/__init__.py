"""The template for families whose sources are like Llama's, with mixtures of experts in the place of MLPs.

Its variants are those of the template for Llama, with what descriptions choose for their experts.
"""
