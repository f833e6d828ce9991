//! Scripts that run an exported model in its own runtime.

/// For llama.cpp, by xllamacpp.
pub const LLAMA_CPP: &str = include_str!("runtimes/llama_cpp_check.py");

/// For MLX-LM.
pub const MLX: &str = include_str!("runtimes/mlx_check.py");
