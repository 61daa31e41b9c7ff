"""Proof for anyone's implementation: does it compute what the paper says? docs/conformance.md is the guide.

    vivit conform my.module
    pytest -p vivit.conformance.plugin --pyargs vivit.conformance --implementation my.module

**The contract.** An implementation is a module or an object with any of these functions; those that it lacks are
reported as absent, never as passed.

    joint(qkv, heads, *, mask)                       qkv [b n 3c], mask bool[b n] or None, returns [b n c]
    spatial(qkv, heads, *, mask)                     qkv [b t s 3c], mask bool[b t s] or None, returns [b t s c]
    temporal, factorised_dot_product                 as spatial
    joint_vjp(qkv, out_cotangent, heads, *, mask)    out_cotangent [b n c] of joint's result, returns that of qkv
    spatial_vjp, temporal_vjp, factorised_dot_product_vjp
    tubelet_embed(video, params)                     video [b frames height width 3] in −1…1, params.kernel
                                                     [time height width 3 c], params.bias [c], returns [b t s c]
    forward(params, video, config)                   params: vivit.reference.params.Params, config: vivit.Config,
                                                     returns the logits [b v]

and optionally

    DTYPES                                           names, of "float32" and "bfloat16"; without it both
    supports(shape, heads)                           whether a core takes a qkv of this shape

* qkv is query, key and value one after the other, the heads contiguous within each: channel (i·heads + h)·d + j of 3c
  is channel j of head h of query (i = 0), key (1) or value (2). Tokens are in row-major order.
* A core computes softmax(Q Kᵀ/√d) V: `joint` among all tokens, `spatial` among those of one time index, `temporal`
  among those of one position, `factorised_dot_product` over time with the first half of the heads and over space with
  the second. vivit/reference/attention.py and gradients.py are the specification.
* mask is True for tokens that may be attended to. A masked token's key and value are never read, whatever they hold;
  nor are values of its query that are not finite, which count as zeros. A query with no key to attend to gives zeros,
  and a zero cotangent.
* The result has the dtype of qkv, or of video. Sums and exponentials are in float32; params of `forward` are float32
  in either dtype, those of `tubelet_embed` have the dtype of video.
* Arguments are NumPy arrays (bfloat16: ml_dtypes) in memory of their own, and must not be changed. Results are arrays
  that NumPy can read, or that can be passed on through DLPack, on the host: NumPy, JAX, PyTorch, ctypes.
* NotImplementedError, or a core without the argument `mask`, means: not supported. It is counted, and its reason
  reported. Any other exception is a failure.
"""
