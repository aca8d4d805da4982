//! The driver of a node: one thread that moves the protocol core over the transport.

pub(crate) mod bell;
pub(crate) mod bulk;
pub(crate) mod bytes;
pub(crate) mod deliver;
mod outbox;
mod quorum;
pub(crate) mod ring;
pub(crate) mod shared;
mod storing;

use crate::config::Config;
use crate::deliveries::Deliveries;
use crate::error::Error;
use crate::group::Group;
use crate::node::Node;

pub(crate) fn start(config: Config) -> Result<(Node, Group, Deliveries), Error> {
    config.check()?;
    Err(Error::Config("the protocol core is not built in yet".into()))
}
