"""Every name of TensorRT, pycuda and cuda-bindings that hwprune may use, with its parameters and its source.

A contract, not a run: the stand-in `tensorrt_standin` has exactly these names. TensorRT's were read in the
bindings' source and compared with the published modules of 10.13.3.9 and 11.4.0.106 by
`benchmarks/tensorrt_names_check.py`; pycuda's in its source; those of cuda-bindings are compared with the
installed package by a test. Parameters are those of the overload that is used; None marks a property, a class
or a constant.
"""

from __future__ import annotations

CORE = "github.com/NVIDIA/TensorRT python/src/infer/pyCore.cpp (v11.1)"
PARSER = "github.com/NVIDIA/TensorRT python/src/parsers/pyOnnx.cpp (v11.1)"
PACKAGE = "tensorrt/__init__.py of the wheels"
DRIVER = "github.com/inducer/pycuda src/wrapper/wrap_cudadrv.cpp"
RUNTIME = "cuda.bindings.runtime of cuda-bindings 13"

TENSORRT = {
    "__version__": (None, PACKAGE),
    "nptype": (("trt_type",), PACKAGE),
    "ILogger": ((), CORE),
    "ILogger.log": (("severity", "msg"), CORE),
    "ILogger.Severity": (None, CORE),
    "IProfiler": ((), CORE),
    "IProfiler.report_layer_time": (("layer_name", "ms"), CORE),
    "IHostMemory": (None, CORE),
    "Dims": (None, "github.com/NVIDIA/TensorRT python/src/infer/pyFoundationalTypes.cpp (v11.1)"),
    "Builder": (("logger",), CORE),
    "Builder.create_network": (("flags",), CORE),
    "Builder.create_builder_config": ((), CORE),
    "Builder.build_serialized_network": (("network", "config"), CORE),
    "INetworkDefinition": (None, "github.com/NVIDIA/TensorRT python/src/infer/pyGraph.cpp (v11.1)"),
    "IBuilderConfig": (None, CORE),
    "IBuilderConfig.clear_flag": (("flag",), CORE),
    "IBuilderConfig.set_memory_pool_limit": (("pool", "pool_size"), CORE),
    "IBuilderConfig.create_timing_cache": (("serialized_timing_cache",), CORE),
    "IBuilderConfig.set_timing_cache": (("cache", "ignore_mismatch"), CORE),
    "IBuilderConfig.get_timing_cache": ((), CORE),
    "IBuilderConfig.profiling_verbosity": (None, CORE),
    "IBuilderConfig.builder_optimization_level": (None, CORE),
    "IBuilderConfig.avg_timing_iterations": (None, CORE),
    "IBuilderConfig.max_aux_streams": (None, CORE),
    "ITimingCache": (None, CORE),
    "ITimingCache.serialize": ((), CORE),
    "OnnxParser": (("network", "logger"), PARSER),
    "OnnxParser.parse": (("model", "path"), PARSER),
    "OnnxParser.num_errors": (None, PARSER),
    "OnnxParser.get_error": (("index",), PARSER),
    "ParserError": (None, PARSER),
    "ParserError.desc": ((), PARSER),
    "Runtime": (("logger",), CORE),
    "Runtime.deserialize_cuda_engine": (("serialized_engine",), CORE),
    "ICudaEngine": (None, CORE),
    "ICudaEngine.create_execution_context": (("strategy",), CORE),
    "ICudaEngine.create_engine_inspector": ((), CORE),
    "ICudaEngine.num_io_tensors": (None, CORE),
    "ICudaEngine.get_tensor_name": (("index",), CORE),
    "ICudaEngine.get_tensor_shape": (("name",), CORE),
    "ICudaEngine.get_tensor_dtype": (("name",), CORE),
    "ICudaEngine.get_tensor_mode": (("name",), CORE),
    "IExecutionContext": (None, CORE),
    "IExecutionContext.profiler": (None, CORE),
    "IExecutionContext.enqueue_emits_profile": (None, CORE),
    "IExecutionContext.set_tensor_address": (("name", "memory"), CORE),
    "IExecutionContext.execute_async_v3": (("stream_handle",), CORE),
    "IExecutionContext.report_to_profiler": ((), CORE),
    "EngineInspector": (None, CORE),
    "EngineInspector.execution_context": (None, CORE),
    "EngineInspector.get_engine_information": (("format",), CORE),
}

# Members of the enumerations, from the published modules; 11 has no flags for number formats any more.
_FLAGS = [
    "DEBUG",
    "GPU_FALLBACK",
    "REFIT",
    "DISABLE_TIMING_CACHE",
    "EDITABLE_TIMING_CACHE",
    "TF32",
    "SPARSE_WEIGHTS",
    "SAFETY_SCOPE",
    "DIRECT_IO",
    "VERSION_COMPATIBLE",
    "EXCLUDE_LEAN_RUNTIME",
    "ERROR_ON_TIMING_CACHE_MISS",
    "DISABLE_COMPILATION_CACHE",
    "STRIP_PLAN",
    "REFIT_IDENTICAL",
    "WEIGHT_STREAMING",
    "REFIT_INDIVIDUAL",
    "STRICT_NANS",
    "MONITOR_MEMORY",
    "DISTRIBUTIVE_INDEPENDENCE",
]
_ONLY_10 = [
    "FP16",
    "BF16",
    "INT8",
    "FP8",
    "INT4",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
]
_NETWORK = ["STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS", "PREFER_JIT_PYTHON_PLUGINS"]
ENUMS = {
    "MemoryPoolType": ["WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "DLA_GLOBAL_DRAM", "TACTIC_DRAM"],
    "ProfilingVerbosity": ["LAYER_NAMES_ONLY", "DETAILED", "NONE"],
    "LayerInformationFormat": ["ONELINE", "JSON"],
    "TensorIOMode": ["NONE", "INPUT", "OUTPUT"],
    "DataType": ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "BF16", "INT64"],
    "ILogger.Severity": ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"],
}
ENUMS_OF = {
    10: {"BuilderFlag": _FLAGS + _ONLY_10, "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH", *_NETWORK]},
    11: {"BuilderFlag": _FLAGS, "NetworkDefinitionCreationFlag": _NETWORK},
}
ABSENT_IN_11 = {"BuilderFlag": _ONLY_10, "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH"]}

PYCUDA_DRIVER = {
    "init": (("flags",), DRIVER),
    "get_version": ((), DRIVER),
    "get_driver_version": ((), DRIVER),
    "mem_alloc": (("bytes",), DRIVER),
    "memcpy_htod": (("dest", "src"), DRIVER),
    "Error": (None, DRIVER),
    "MemoryError": (None, DRIVER),
    "LogicError": (None, DRIVER),
    "Device": (("number",), DRIVER),
    "Device.count": ((), DRIVER),
    "Device.name": ((), DRIVER),
    "Device.pci_bus_id": ((), DRIVER),
    "Device.compute_capability": ((), DRIVER),
    "Device.retain_primary_context": ((), DRIVER),
    "Context": (None, DRIVER),
    "Context.push": ((), DRIVER),
    "Context.pop": ((), DRIVER),
    "Stream": (("flags",), DRIVER),
    "Stream.synchronize": ((), DRIVER),
    "Stream.handle": (None, DRIVER),
    "Event": (("flags",), DRIVER),
    "Event.record": (("stream",), DRIVER),
    "Event.time_till": (("end",), DRIVER),
    "DeviceAllocation": (None, DRIVER),
    "DeviceAllocation.free": ((), DRIVER),
}

CUDA_RUNTIME = {
    "cudaStreamBeginCapture": (("stream", "mode"), RUNTIME),
    "cudaStreamEndCapture": (("stream",), RUNTIME),
    "cudaGraphInstantiate": (("graph", "flags"), RUNTIME),
    "cudaGraphDestroy": (("graph",), RUNTIME),
    "cudaGraphLaunch": (("graphExec", "stream"), RUNTIME),
    "cudaGraphExecDestroy": (("graphExec",), RUNTIME),
    "cudaStreamCaptureMode": (None, RUNTIME),
    "cudaError_t": (None, RUNTIME),
}
