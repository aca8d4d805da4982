//! Where the other process of a measurement runs, and where both sides receive: here, or at a server.

use crate::agreement::{self, Server};
use crate::children::{Errand, Peer, tell, two_addresses};
use std::error::Error;
use std::net::SocketAddr;

/// A place for one process.
pub(crate) struct Place {
    addresses: [SocketAddr; 2],
    server: Option<Server>,
}

impl Place {
    /// At that server, or here.
    pub(crate) fn find(host: Option<&str>) -> Result<Place, Box<dyn Error>> {
        let Some(host) = host else {
            return Ok(Place { addresses: two_addresses()?, server: None });
        };
        let (server, addresses) = agreement::ask(host)?;
        Ok(Place { addresses, server: Some(server) })
    }

    /// Where this side and the other receive.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Starts the other process there.
    pub(crate) fn start(
        self,
        errand: &impl Errand,
        core: Option<usize>,
    ) -> Result<Peer, Box<dyn Error>> {
        let Some(mut server) = self.server else { return Ok(Peer::start(errand, core)?) };
        agreement::order(&mut server, &tell(errand), core)?;
        Ok(Peer::remote(server.get_ref().try_clone()?, server))
    }
}
