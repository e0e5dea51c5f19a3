"""A stand-in for `tensorrt`, `pycuda` and `cuda.bindings` with only the names of `tensorrt_names`.

A contract test, not a run: a misspelt call, a wrong keyword, a flag that TensorRT 11 no longer has, or a call
in an impossible order fails; whether a GPU does what is expected, and how fast, cannot be seen here. Its
engines have the layers of the ONNX with the known times of `FakeRuntime`; its clock advances with each run.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
from types import ModuleType

import numpy as np
import onnx
from tensorrt_names import ENUMS, ENUMS_OF
from tensorrt_standin_cuda import Machine, Strict, driver_module, runtime_module

from hwprune.runtimes.fake import FakeDevice, fake_kernels

VERSIONS = {10: "10.13.3.9", 11: "11.4.0.106"}
DEVICE = FakeDevice(step=8, cliff=8)
_WORDS = {1: ("FP32", "Float"), 10: ("FP16", "Half"), 3: ("Int8", "Int8"), 2: ("Int8", "Int8")}
_PAIRS = ("QuantizeLinear", "DequantizeLinear")


class Settable:
    """A property that can be set, and remembers it."""

    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, thing, owner=None):
        return self if thing is None else getattr(thing, self.name, None)

    def __set__(self, thing, value):
        setattr(thing, self.name, value)


class Memory(bytes):
    """Bytes that a library owns."""


def install(monkeypatch, machine: Machine, *, graphs: bool = True) -> Machine:
    """Put the stand-ins where imports find them.

    Args:
        monkeypatch: Takes them away again.
        machine: What they run on.
        graphs: Whether cuda-bindings is installed.
    """
    pycuda, cuda, bindings = ModuleType("pycuda"), ModuleType("cuda"), ModuleType("cuda.bindings")
    pycuda.driver = driver_module(machine)
    modules = {"tensorrt": tensorrt_module(machine), "pycuda": pycuda, "pycuda.driver": pycuda.driver}
    modules.update({"cuda": cuda, "cuda.bindings": bindings})
    cuda.__path__ = bindings.__path__ = []  # type: ignore[attr-defined]
    if graphs:
        bindings.runtime = modules["cuda.bindings.runtime"] = runtime_module(machine)
    else:
        monkeypatch.delitem(sys.modules, "cuda.bindings.runtime", raising=False)
    for name, module in modules.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return machine


def simulated_layers(content: bytes, version: int, factor: float, force_fp32: bool) -> list[dict]:
    """What the inspector would tell of an engine for a network, with each layer's time in `us`."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    makers = {name: node for node in model.graph.node for name in node.output}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    layers = []

    def described(name, kind):
        words = _WORDS[1 if force_fp32 else kind]
        if version == 10:
            return {"Name": name, "Format/Datatype": f"Channel major {words[0]} format"}
        return {"Name": name, "Format": "Channel major", "Datatype": words[1]}

    for kernel in fake_kernels(content, DEVICE):
        if kernel.op in _PAIRS:
            continue
        chain, tensor = [], kernel.tensor
        while True:  # back from the tensor at the end of the fused operators
            chain.insert(0, makers[tensor])
            if kernel.reorder or chain[0].op_type == kernel.op:
                break
            tensor = chain[0].input[0]
        first, end = chain[0], chain[-1].output[0]
        name = " + ".join(node.name for node in chain)
        source = makers.get(first.input[0])
        kind = 3 if source is not None and source.op_type == "DequantizeLinear" else types[end]
        layer = {"Name": name, "LayerType": "Reformat" if first.op_type == "Cast" else "CaskConvolution"}
        layer["Inputs"], layer["Outputs"] = [described(first.input[0], kind)], [described(end, kind)]
        if kernel.reorder:
            copy = f"Reformatted Output Tensor 0 to {name}"
            layer.update(Name=f"Reformatting CopyNode for Output Tensor 0 to {name}", LayerType="Reformat")
            layer["Inputs"], layer["Outputs"] = [described(end, kind)], [described(copy, kind)]
        elif kernel.op == "Gemm":  # taken over by Myelin, which forgets the names
            layer.update(Name=f"__myl_Fc_{len(layers)}", LayerType="kgen")
            layer["Outputs"] = [described(f"__mye{len(layers)}", kind)]
            layer["Metadata"] = "\x1e".join(f"[ONNX Layer: {node.name}]" for node in chain)
        layers.append({**layer, "us": kernel.time_us * factor})
    return layers


def tensorrt_module(machine: Machine) -> ModuleType:
    """The module `tensorrt` of one version."""
    enums = {
        name: enum.IntEnum(name.split(".")[-1], members, start=0)
        for name, members in {**ENUMS, **ENUMS_OF[machine.version]}.items()
    }

    class ILogger:
        Severity = enums["ILogger.Severity"]

        def __init__(self):
            pass

        def log(self, severity, msg):
            raise NotImplementedError

    class IProfiler:
        def __init__(self):
            pass

        def report_layer_time(self, layer_name, ms):
            raise NotImplementedError

    class ITimingCache(Strict):
        def __init__(self, content):
            self._content = bytes(content)

        def serialize(self):
            return Memory(self._content)

    class IBuilderConfig(Strict):
        profiling_verbosity, builder_optimization_level = Settable(), Settable()
        avg_timing_iterations, max_aux_streams = Settable(), Settable()
        _cache = None

        def clear_flag(self, flag):
            machine.config[enums["BuilderFlag"](flag).name] = False

        def set_memory_pool_limit(self, pool, pool_size):
            machine.config[enums["MemoryPoolType"](pool).name] = int(pool_size)

        def create_timing_cache(self, serialized_timing_cache):
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache, ignore_mismatch):
            content = cache.serialize()
            if content and json.loads(content)["version"] != machine.version and not ignore_mismatch:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

    class INetworkDefinition(Strict):
        _onnx = None

    class Builder(Strict):
        def __init__(self, logger):
            if not isinstance(logger, ILogger):
                raise TypeError("incompatible constructor arguments")
            self._logger = logger
            machine.given(self, logger)

        def create_network(self, flags=0):
            machine.config["flags"] = flags
            return INetworkDefinition()

        def create_builder_config(self):
            return IBuilderConfig()

        def build_serialized_network(self, network, config):
            assert machine.contexts, "no CUDA context is current"
            if machine.failure:
                machine.say(ILogger.Severity.ERROR, machine.failure)
                return None
            machine.builds += 1
            machine.networks.add(hash(network._onnx))
            properties = [name for name, value in vars(IBuilderConfig).items() if isinstance(value, Settable)]
            machine.config.update({name: getattr(config, name) for name in properties})
            known = json.loads(config._cache.serialize() or b"{}")
            factor = known.get("factor", 1 + 0.01 * machine.builds)  # chosen by timing: differs each time
            blob = json.dumps({"version": machine.version, "factor": factor}).encode()
            config._cache = ITimingCache(blob)
            layers = simulated_layers(network._onnx, machine.version, factor, machine.force_fp32)
            return Memory(json.dumps({"ends": _ends(network._onnx), "layers": layers}).encode())

    class ParserError(Strict):
        def desc(self):
            return "In node 0 (parseGraph): UNSUPPORTED_NODE"

    class OnnxParser(Strict):
        num_errors = property(lambda self: self._errors)

        def __init__(self, network, logger):
            self._network, self._errors = network, 0

        def parse(self, model, path=None):
            graph = onnx.load_model_from_string(bytes(model)).graph
            self._network._onnx = bytes(model)
            self._errors = int(any(node.op_type == "NonZero" for node in graph.node))
            return not self._errors

        def get_error(self, index):
            return ParserError()

    class EngineInspector(Strict):
        execution_context = Settable()

        def __init__(self, layers):
            self._layers = layers

        def get_engine_information(self, format):
            assert format == enums["LayerInformationFormat"].JSON
            shown = [{key: value for key, value in layer.items() if key != "us"} for layer in self._layers]
            return json.dumps({"Layers": shown, "Bindings" if machine.version == 10 else "I/O Tensors": []})

    class IExecutionContext(Strict):
        profiler, enqueue_emits_profile = Settable(), Settable()

        def __init__(self, plan):
            self._plan, self._ready, self._pending = plan, {}, False

        def set_tensor_address(self, name, memory):
            self._ready[name] = int(memory)
            return int(memory) > 0

        def execute_async_v3(self, stream_handle):
            assert machine.contexts
            assert stream_handle > 0
            if {end["name"] for end in self._plan["ends"]} != self._ready.keys():
                return False
            if machine.captured is not None:
                if not machine.captures:
                    return False
                machine.captured.append(self._run)
            else:
                machine.worked = stream_handle
                self._run()
            return True

        def _run(self):
            assert set(self._ready.values()) <= machine.live, "a buffer that was freed"
            machine.calls.append("run")
            machine.ran.append(id(self))
            machine.now_ms += sum(layer["us"] for layer in self._plan["layers"]) / 1e3
            self._pending = True

        def report_to_profiler(self):
            assert self.profiler is not None
            assert self.enqueue_emits_profile is False
            if not self._pending:
                return False
            self._pending = False
            for layer in self._plan["layers"]:
                self.profiler.report_layer_time(layer["Name"], layer["us"] / 1e3)
            return True

    class ICudaEngine(Strict):
        num_io_tensors = property(lambda self: len(self._plan["ends"]))

        def __init__(self, plan):
            self._plan = plan
            self._ends = {end["name"]: end for end in plan["ends"]}

        def create_execution_context(self, strategy=0):
            return IExecutionContext(self._plan)

        def create_engine_inspector(self):
            return EngineInspector(self._plan["layers"])

        def get_tensor_name(self, index):
            return list(self._ends)[index]

        def get_tensor_shape(self, name):
            return tuple(self._ends[name]["shape"])

        def get_tensor_dtype(self, name):
            return enums["DataType"].FLOAT

        def get_tensor_mode(self, name):
            return enums["TensorIOMode"][self._ends[name]["mode"]]

    class Runtime(Strict):
        def __init__(self, logger):
            self._logger = logger
            machine.given(self, logger)

        def deserialize_cuda_engine(self, serialized_engine):
            if not machine.loads:
                machine.say(ILogger.Severity.ERROR, "Version tag does not match")
                return None
            return ICudaEngine(json.loads(serialized_engine))

    def nptype(trt_type):
        return {enums["DataType"].FLOAT: np.float32, enums["DataType"].HALF: np.float16}[trt_type]

    module = ModuleType("tensorrt")
    things = (
        ILogger,
        IProfiler,
        ITimingCache,
        IBuilderConfig,
        INetworkDefinition,
        Builder,
        ParserError,
        Runtime,
    )
    things += (OnnxParser, EngineInspector, IExecutionContext, ICudaEngine, nptype)
    vars(module).update({thing.__name__: thing for thing in things}, __version__=VERSIONS[machine.version])
    vars(module).update({name: kind for name, kind in enums.items() if "." not in name})
    return module


def _ends(content: bytes) -> list[dict]:
    graph = onnx.load_model_from_string(content).graph
    return [
        {"name": e.name, "mode": mode, "shape": [dim.dim_value for dim in e.type.tensor_type.shape.dim]}
        for mode, entries in (("INPUT", graph.input), ("OUTPUT", graph.output))
        for e in entries
    ]
