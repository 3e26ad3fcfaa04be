"""Lists the operators of a policy, each with its attributes: a file with any other is refused.

All of them compute tensors from tensors: none reads a file, draws a number, runs a graph of its
own or keeps anything.  Names and types are those of opset 18; ``exporting`` writes some fifty of
them, the networks of other trainers more.
"""

from __future__ import annotations

OPSET = 18  #: version of the operators that a policy is written in
IR_VERSION = 8  #: version of the file format, what onnxruntime 1.15 and its successors read

_PLAIN = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    CastLike Ceil Clip Cos Cosh Div DynamicQuantizeLinear Equal Erf Exp Expand Floor
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSwish Identity IsNaN Less
    LessOrEqual Log MatMul MatMulInteger Max Mean Min Mish Mul Neg Not Or PRelu Pow Range
    Reciprocal Relu Round Sigmoid Sign Sin Sinh Size Slice Softplus Softsign Sqrt Squeeze Sub
    Sum Tan Tanh Tile Unsqueeze Where Xor
"""
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_RECURRENT = (
    "activation_alpha:floats activation_beta:floats activations:strings clip:f direction:s "
    "hidden_size:i layout:i"
)
_WINDOW = "auto_pad:s kernel_shape:ints pads:ints strides:ints"

#: operator -> its attributes, each with the kind of its value
_TOLD: dict[str, str] = {
    "ArgMax": "axis:i keepdims:i select_last_index:i",
    "ArgMin": "axis:i keepdims:i select_last_index:i",
    "AveragePool": f"{_WINDOW} ceil_mode:i count_include_pad:i",
    "BatchNormalization": "epsilon:f momentum:f training_mode:i",
    "BitShift": "direction:s",
    "Cast": "to:i",
    "Celu": "alpha:f",
    "Concat": "axis:i",
    "Constant": "value:t value_float:f value_floats:floats value_int:i value_ints:ints",
    "ConstantOfShape": "value:t",
    "Conv": f"{_WINDOW} dilations:ints group:i",
    "ConvTranspose": f"{_WINDOW} dilations:ints group:i output_padding:ints output_shape:ints",
    "CumSum": "exclusive:i reverse:i",
    "DepthToSpace": "blocksize:i mode:s",
    "DequantizeLinear": "axis:i",
    "Einsum": "equation:s",
    "Elu": "alpha:f",
    "Flatten": "axis:i",
    "GRU": f"{_RECURRENT} linear_before_reset:i",
    "Gather": "axis:i",
    "GatherElements": "axis:i",
    "GatherND": "batch_dims:i",
    "Gemm": "alpha:f beta:f transA:i transB:i",
    "HardSigmoid": "alpha:f beta:f",
    "Hardmax": "axis:i",
    "InstanceNormalization": "epsilon:f",
    "IsInf": "detect_negative:i detect_positive:i",
    "LRN": "alpha:f beta:f bias:f size:i",
    "LSTM": f"{_RECURRENT} input_forget:i",
    "LayerNormalization": "axis:i epsilon:f stash_type:i",
    "LeakyRelu": "alpha:f",
    "LogSoftmax": "axis:i",
    "LpNormalization": "axis:i p:i",
    "MaxPool": f"{_WINDOW} ceil_mode:i dilations:ints storage_order:i",
    "Mod": "fmod:i",
    "OneHot": "axis:i",
    "Pad": "mode:s",
    "QuantizeLinear": "axis:i",
    "RNN": _RECURRENT,
    "Reshape": "allowzero:i",
    "Resize": (
        "antialias:i axes:ints coordinate_transformation_mode:s cubic_coeff_a:f "
        "exclude_outside:i extrapolation_value:f keep_aspect_ratio_policy:s mode:s nearest_mode:s"
    ),
    "ScatterElements": "axis:i reduction:s",
    "ScatterND": "reduction:s",
    "Selu": "alpha:f gamma:f",
    "Shape": "end:i start:i",
    "Shrink": "bias:f lambd:f",
    "Softmax": "axis:i",
    "SpaceToDepth": "blocksize:i",
    "Split": "axis:i num_outputs:i",
    "ThresholdedRelu": "alpha:f",
    "TopK": "axis:i largest:i sorted:i",
    "Transpose": "perm:ints",
    "Trilu": "upper:i",
}

#: operator -> attribute -> kind of its value: i f s t ints floats strings
OPERATORS: dict[str, dict[str, str]] = {
    **{name: {} for name in _PLAIN.split()},
    **{name: {"keepdims": "i", "noop_with_empty_axes": "i"} for name in _REDUCTIONS.split()},
    **{
        name: dict(pair.split(":", 1) for pair in attributes.split())  # type: ignore[misc]
        for name, attributes in _TOLD.items()
    },
}

#: numbers of element types in onnx.proto -> bytes of one; none holds text
ELEMENT_BYTES = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8,
}  # fmt: skip
