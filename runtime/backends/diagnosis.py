"""Which node of a model a library's complaint is about."""

import re

from onnx import ModelProto


def explain(proto: ModelProto, complaint: str) -> str:
    """The complaint's telling line, and the nodes whose operator or name it mentions.

    Libraries say `no conversion for MyOp` or nothing but a tensor's name; a user needs the node. Nodes
    are named by operator and name, up to three.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    words = set(re.findall(r"[\w.:/-]+", complaint))
    standard = {"", "ai.onnx"}
    named = [n for n in proto.graph.node if n.name and n.name in words]
    # An operator of the standard is mentioned by many messages that are about something else.
    strange = [
        n
        for n in proto.graph.node
        if n.domain not in standard and any(n.op_type in word for word in words)
    ]
    kinds = {n.op_type for n in proto.graph.node}
    refused = {
        kind for kind in kinds if re.search(rf"(unsupported|not support|no conversion|not implement|"
                                            rf"not a registered).{{0,200}}\b{kind}\b", complaint,
                                            re.IGNORECASE | re.DOTALL)
    }  # fmt: skip
    culprits = strange or named or [n for n in proto.graph.node if n.op_type in refused]
    if not culprits:
        return reason
    listed = ", ".join(_describe(n.domain, n.op_type, n.name) for n in culprits[:3])
    more = f" and {len(culprits) - 3} more" if len(culprits) > 3 else ""
    return f"operator {listed}{more}: {reason}"


def _describe(domain: str, kind: str, name: str) -> str:
    operator = f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind
    return f"{operator} (node {name or 'without a name'})"
