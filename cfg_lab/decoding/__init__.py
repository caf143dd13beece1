"""Guided decoding with a KV cache: token ids in, token ids out, without text or files.

Read the modules in this order: `request` (what is decoded), `decoder` (the loop), `batch` (the steps of the
loop), `group`, `distributions` and `sampling` (guide and sample), `model_rows` and `kv_buffer` (prefill, fork
and free rows), `completion` and `trace` (the result). `static_batch` computes the same on GPUs, in steps that
are recorded once.
"""
