"""What the runtimes of Unity and Unreal accept of ONNX, as documented: data, and where it is from.

`Target` is one engine's list; `TARGETS` holds both. The lists were copied from the documents named in
`sources`, and hold for the versions named there. What a document leaves open is said in `open_points`.
Neither engine was at hand: nothing here was tried in one.
"""

from dataclasses import dataclass, field
from typing import Literal

Engine = Literal["unity", "unreal"]

IR_VERSION = 8
"""Of exported files: ONNX's own pairing for operator sets 15 to 17."""

DEFAULT_OPSET = 15
"""What Unity's page "Export and convert a file to ONNX" advises; Unreal's runtimes take it, too."""

LOWEST_EXPORT_OPSET = 13
"""The lowest whose Squeeze, Clip and Pad are written as the exported graphs have them."""

IMAGE, RESULT = "image", "result"
"""Names of an exported graph's input and output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRule:
    """An attribute of an operator that must keep to some values."""

    operator: str
    attribute: str
    allowed: tuple[object, ...]
    """Values that pass; an empty tuple forbids the attribute altogether."""
    why: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one engine accepts."""

    name: Engine
    title: str
    opsets: tuple[int, int]
    """Lowest and highest operator set that the documents promise."""
    opset_note: str
    """Who says so, and what newer versions take."""
    max_ir: int | None
    """The newest file format that the oldest runtime reads; None where the importer does not look."""
    operators: frozenset[str]
    unsupported: frozenset[str]
    """Operators that the documents name as not supported; others are only not named."""
    not_listed: str
    """What follows for an operator that is not in `operators`."""
    slow: dict[str, str]
    """Listed operators that leave the GPU, and what the document says."""
    attributes: tuple[AttributeRule, ...]
    max_rank: int | None
    pool_rank: int | None
    """Highest rank of what AveragePool and MaxPool take."""
    constants: frozenset[str] | None
    """Types, in ONNX's names, that weights may have; None for all but `refused`."""
    refused: frozenset[str]
    """Types that no tensor may have."""
    named_dimensions: bool
    """Whether the runtime fixes free dimensions by their names."""
    external_data: bool
    """Whether weights may lie in a file beside the model."""
    half: bool
    """Whether a graph in half precision gains anything in the engine."""
    int8_refusal: str
    half_refusal: str = ""
    sources: tuple[str, ...] = ()
    open_points: tuple[str, ...] = field(default=())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SENTIS = _words("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Bernoulli
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu Clip Compress
    Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DFT Div Dropout
    Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample HammingWindow HannWindow Hardmax HardSigmoid
    HardSwish Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual
    Log LogSoftmax LRN LSTM MatMul Max MaxPool Mean MelWeightMatrix Min Mod Mish Mul Multinomial Neg
    NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RoiAlign Round Scatter
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze STFT Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Trilu Unsqueeze Upsample Where Xor
""")

_SENTIS_UNSUPPORTED = _words("""
    AffineGrid BitShift CenterCropPad Col2Im ConcatFromSequence ConvInteger DeformConv DequantizeLinear
    Det DynamicQuantizeLinear EyeLike GlobalLpPool GroupNormalization GRU If ImageDecoder Loop
    LpNormalization LpPool MatMulInteger MaxRoiPool MaxUnpool MeanVarianceNormalization
    NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul
    QuantizeLinear RegexFullMatch ReverseSequence RNN Scan SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence
    StringConcat StringNormalizer StringSplit TfIdfVectorizer Unique
""")

_DIRECTML = _words("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Col2Im Concat
    ConcatFromSequence ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DFT DepthToSpace
    DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten
    Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample HardSigmoid Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul
    MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Neg
    NonZero Not OneHot OptionalGetElement OptionalHasElement Or PRelu Pad Pow QLinearConv QLinearMatMul
    QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round STFT Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""")

_SUPPORTED_OPERATORS = 'Unity manual, com.unity.ai.inference 2.4, "Supported ONNX operators"'


def _sentis_rule(
    operator: str, attribute: str, allowed: tuple[object, ...], advice: str
) -> AttributeRule:
    why = f"{attribute} is not supported (Sentis 2.4)"
    return AttributeRule(
        operator=operator, attribute=attribute, allowed=allowed, why=why, advice=advice
    )


def _substituted(operator: str, attribute: str, allowed: tuple[object, ...]) -> AttributeRule:
    """Of attributes whose other values the importer replaces by another one, with a warning only."""
    names = " or ".join(str(value) for value in allowed)
    return AttributeRule(
        operator=operator,
        attribute=attribute,
        allowed=allowed,
        why=f"the importer of Sentis 2.4 takes another {attribute} in its place, with a warning only",
        advice=f"export it with {names}",
    )


_POOL_ADVICE = "pad the input before the pooling so that it comes out even"

UNITY = Target(
    name="unity",
    title="Unity Sentis (Inference Engine, com.unity.ai.inference)",
    opsets=(7, 15),
    opset_note="the manuals of 2.2 to 2.4 promise 7 to 15; the notes of 2.6 go up to 25",
    max_ir=None,
    operators=_SENTIS,
    unsupported=_SENTIS_UNSUPPORTED,
    not_listed="the importer refuses the file",
    slow={
        "Compress": "runs with BackendType.CPU only",
        "LRN": "runs with BackendType.CPU only before 2.5",
        "NonZero": "runs with BackendType.CPU only",
    },
    attributes=(
        _sentis_rule("AveragePool", "ceil_mode", (0,), _POOL_ADVICE),
        _sentis_rule("AveragePool", "count_include_pad", (0,), "put a Pad before the pooling"),
        _sentis_rule("BatchNormalization", "training_mode", (0,), "export the network for inference"),
        _sentis_rule("Constant", "sparse_value", (), "write the tensor out"),
        _sentis_rule("Constant", "value_string", (), "remove the string"),
        _sentis_rule("Constant", "value_strings", (), "remove the strings"),
        _sentis_rule("ConvTranspose", "output_shape", (), "give pads and output_padding"),
        _sentis_rule("MaxPool", "ceil_mode", (0,), _POOL_ADVICE),
        _sentis_rule("MaxPool", "dilations", (1,), "use a pooling without dilation"),
        _sentis_rule("MaxPool", "storage_order", (0,), "do without the second output"),
        _sentis_rule("Resize", "cubic_coeff_a", (-0.75,), "export it with mode linear"),
        _sentis_rule("Resize", "exclude_outside", (0,), "export it with mode linear"),
        _sentis_rule("Resize", "extrapolation_value", (0.0,), "resize without cropping"),
        _sentis_rule("Resize", "antialias", (0,), "average before it is made smaller"),
        _substituted("Resize", "mode", ("nearest", "linear")),
        _substituted("Upsample", "mode", ("nearest", "linear")),
        _substituted(
            "Resize",
            "coordinate_transformation_mode",
            ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
        ),
        _substituted("Pad", "mode", ("constant", "reflect", "edge", "wrap")),
        _substituted("GridSample", "padding_mode", ("zeros", "border", "reflection")),
    ),
    max_rank=8,
    pool_rank=4,
    constants=_words("FLOAT DOUBLE FLOAT16 INT32 INT64 BOOL UINT8 INT8"),
    refused=_words("STRING COMPLEX64 COMPLEX128"),
    named_dimensions=False,
    external_data=True,
    half=False,
    int8_refusal=(
        "Unity lists QuantizeLinear and DequantizeLinear as not supported: export fp32, and quantise "
        "the weights in Unity (ModelQuantizer, Uint8)"
    ),
    half_refusal=(
        "Unity imports all weights as 32-bit values: export fp32, and make the weights smaller in "
        "Unity (ModelQuantizer, Float16)"
    ),
    sources=(
        _SUPPORTED_OPERATORS + ": operators, attributes, backends",
        'the same manual, "Supported models": operator sets 7 to 15, eight dimensions, types',
        'the same manual, "Export and convert a file to ONNX": operator set 15',
        'the same manual, "Quantize a Model": weights are imported as 32-bit values',
        'com.unity.ai.inference 2.6, "What\'s new": operator sets up to 25',
        "com.unity.ai.inference 2.4.0, Editor/ONNX (the importer, in C#): modes that it replaces, "
        "types of constants",
    ),
    open_points=(
        "the list of 2.4 is taken for all of 2.x: 2.2 lacks group and dilations of ConvTranspose and "
        "the operators that 2.4 added, of which exported models use none; 2.5 and 2.6 add to it",
        "what 2.6 says of the limits of cubic interpolation was not at hand: Resize with it is flagged",
    ),
)

_HOST = "ONNX Runtime runs it on the CPU, with copies from the GPU and back in every frame"

UNREAL = Target(
    name="unreal",
    title="Unreal NNE (NNERuntimeORTDml and NNERuntimeORTCpu)",
    opsets=(7, 17),
    opset_note=(
        "ONNX Runtime's DirectML page: up to 17 with DirectML 1.12, up to 20 with 1.15; which one it "
        "is depends on the engine's version"
    ),
    max_ir=IR_VERSION,
    # ONNX Runtime folds Constant into a weight before any provider sees it.
    operators=_DIRECTML | {"Constant"},
    unsupported=frozenset(),
    not_listed=f"DirectML has no kernel for it: {_HOST}",
    slow={},
    attributes=(),
    max_rank=None,
    pool_rank=None,
    constants=None,
    refused=_words(
        "STRING COMPLEX64 COMPLEX128 BFLOAT16 DOUBLE FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 "
        "FLOAT8E5M2FNUZ"
    ),
    named_dimensions=True,
    external_data=False,
    half=True,
    int8_refusal=(
        "nothing is documented of what a quantised graph gains in Unreal: export fp32, or fp16 for "
        "half the size"
    ),
    sources=(
        'Unreal Engine documentation, "Neural Network Engine Overview": runtimes and interfaces',
        'Unreal Engine API, plugin NNERuntimeORT: "accelerated by the CPU and DirectML execution '
        'providers"',
        "ONNX Runtime, docs/OperatorKernels.md, table of DmlExecutionProvider (opset versions to 25): "
        "operators and types",
        'ONNX Runtime, "DirectML Execution Provider": operator sets; more are "unsupported and will '
        'yield poor performance"',
        'ONNX Runtime, "Compatibility": file format 8 and operator set 17 need ONNX Runtime 1.12',
    ),
    open_points=(
        "Epic publishes neither the version of ONNX Runtime in each release nor an operator list; "
        "notes of others name 1.19 in 5.7, and 1.24.3 with DirectML 1.15.4 in 5.8",
        "that free dimensions are fixed by name, and must leave none free at the output, is read from "
        "the engine's source, which may change",
        "NNERuntimeRDGHlsl: the API reference says that it does not have full operator support, and no "
        "list is published; nor for NNERuntimeIREE",
    ),
)

TARGETS: dict[str, Target] = {"unity": UNITY, "unreal": UNREAL}
