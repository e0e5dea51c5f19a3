"""Latency as plain ONNX Runtime sees it, with nothing of hwprune: the second opinion on what it claims."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime

_RUNS, _WARM = 30, 2


def one_thread(onnx: bytes | str) -> onnxruntime.InferenceSession:
    """A session of a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def latency_ratio(
    network: onnxruntime.InferenceSession, reference: onnxruntime.InferenceSession, visits: int = 60
) -> float:
    """Median over interleaved visits of the ratio of their 25th percentiles."""
    image = np.random.default_rng(0).standard_normal(network.get_inputs()[0].shape).astype(np.float32)

    def visit(session: onnxruntime.InferenceSession) -> float:
        times = []
        for _ in range(_RUNS):
            started = time.perf_counter()
            session.run(None, {"input": image})
            times.append(time.perf_counter() - started)
        return float(np.percentile(times[_WARM:], 25))

    return float(np.median([visit(network) / visit(reference) for _ in range(visits)]))
