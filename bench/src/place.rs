//! Where the other processes of a measurement run, and where all of them receive: here, or at a server.

use crate::agreement::{self, Server};
use crate::children::{Errand, Peer, free_addresses, tell};
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};

/// A place for one process.
pub(crate) struct Place {
    addresses: [SocketAddr; 2],
    server: Option<Server>,
}

impl Place {
    /// At that server, or here.
    pub(crate) fn find(host: Option<&str>) -> Result<Place, Box<dyn Error>> {
        let mut one = Place::several(host, 1)?;
        Ok(one.remove(0))
    }

    /// As many, each for another process. This side receives in one place for all of them.
    pub(crate) fn several(host: Option<&str>, count: usize) -> Result<Vec<Place>, Box<dyn Error>> {
        let Some(host) = host else {
            let addresses = free_addresses(count + 1)?;
            let here = |at: &SocketAddr| Place { addresses: [addresses[0], *at], server: None };
            return Ok(addresses[1..].iter().map(here).collect());
        };
        let asked = (0..count).map(|_| agreement::ask(host)).collect::<Result<Vec<_>, _>>()?;
        let (nearest, _) = asked.first().ok_or("no process is wanted")?;
        let own = UdpSocket::bind((nearest.get_ref().local_addr()?.ip(), 0))?.local_addr()?;
        let there = |(server, at)| Place { addresses: [own, at], server: Some(server) };
        Ok(asked.into_iter().map(there).collect())
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
