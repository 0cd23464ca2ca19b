"""A local web demo of trained models, made with Gradio: `usp app`. It uses models through `usp_mm.apis` alone."""
