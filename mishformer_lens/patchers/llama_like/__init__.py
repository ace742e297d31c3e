"""The template for families whose sources are like Llama's. Its variants put together what descriptions choose."""
