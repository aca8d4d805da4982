//! The failover-aware client library, its wire protocol, and the proxy.
