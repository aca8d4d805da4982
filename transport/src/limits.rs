//! Every table, queue and message has a bound, fixed at start. They are gathered here.

/// Nodes in a cluster, the own one included.
pub const NODES_MAX: usize = 64;
/// Highest node id.
pub const NODE_ID_MAX: u16 = 4096;
/// Lanes of a node: as many as have their published positions in one cache line.
pub const LANES_MAX: usize = 6;
/// Words of one lane.
pub const LANE_WORDS_MAX: usize = 1024;
/// Smallest ring log in bytes (tests use it to meet the wrap often).
pub const LOG_BYTES_MIN: usize = 128;
/// Largest ring log in bytes.
pub const LOG_BYTES_MAX: usize = 1 << 30;
/// Highest service level of InfiniBand: four bits of a packet.
pub const SERVICE_LEVEL_MAX: u8 = 15;
/// Bytes of a cluster's name.
pub const CLUSTER_NAME_MAX: usize = 64;
/// Links that may exist per peer: the live one and dead ones not yet forgotten.
pub const LINKS_PER_PEER_MAX: usize = 8;
/// Largest datagram, where the path allows it (loopback; jumbo frames are smaller): what UDP over IPv4 can hold.
pub const DATAGRAM_MAX: usize = 65_507;
/// Bytes asked for as the receive buffer of a UDP socket.
pub const RECEIVE_BUFFER: i32 = 4 << 20;
/// Bytes asked for as the send buffer of a UDP socket, one per peer.
pub const SEND_BUFFER: i32 = 1 << 20;
/// Connections whose hello is outstanding, over all peers.
pub const HANDSHAKES_MAX: usize = 2 * NODES_MAX;
/// Events waiting for [`Poller::poll_event`](crate::Poller::poll_event). Bounded by links, see there.
pub const EVENTS_MAX: usize = 4 * NODES_MAX * LINKS_PER_PEER_MAX;
