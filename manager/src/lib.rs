//! The component manager: the daemon quintetd and the command line quintet.
