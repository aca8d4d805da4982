//! Single-writer replicated memory between nodes: words and logs, over shared memory and UDP.
