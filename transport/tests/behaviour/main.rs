//! What a poller promises, asked of every path: shared memory and UDP.

mod deaths;
mod harness;
mod logs;
mod meeting;
mod overrun;
mod waiting;
mod words;
