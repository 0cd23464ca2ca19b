"""A local web demo of trained models, made with Gradio: `usp app`. It uses models only through `usp_mm.apis`."""
