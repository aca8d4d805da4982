//! Round trip of one message between two pollers in two processes: a record goes out on the group lane, the other
//! side sends one back.

use crate::children::{Peer, end_with_parent, free_addresses};
use crate::report::{Report, cpu_time, histogram, record};
use crate::{Provider, Waiting};
use quintet_transport::{
    Config, Event, GROUP, Incarnation, LinkId, LogWriter, Member, NodeId, PeerConfig, Poller, Time,
    clock,
};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the two may take to find each other.
const CONNECT: Duration = Duration::from_secs(5);

/// Flags of `pingpong`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// What carries the bytes.
    #[arg(long, value_enum, default_value_t)]
    provider: Provider,
    /// Payload bytes.
    #[arg(short, long, default_value_t = 64)]
    size: usize,
    /// Round trips measured.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    count: u64,
    /// Round trips before that, not measured.
    #[arg(long, default_value_t = 10_000)]
    warm_up: u64,
    /// How both sides wait.
    #[arg(long, value_enum, default_value_t)]
    wait: Waiting,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Addresses of the two sides; chosen by itself.
    #[arg(long, value_delimiter = ',', hide = true)]
    addresses: Vec<SocketAddr>,
    /// Name of the measurement's own cluster.
    #[arg(long, default_value = "", hide = true)]
    cluster: String,
}

/// Measures, and starts the other side.
pub(crate) fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let arguments = Arguments {
        addresses: free_addresses(2)?,
        cluster: format!("perf-{}", std::process::id()),
        ..arguments.clone()
    };
    let (own, peer) = (arguments.addresses[0], arguments.addresses[1]);
    let other = Peer::start("pong", &words(&arguments, own, peer))?;
    let mut side = Side::connect(&arguments, 1)?;
    let mut latencies = histogram();
    let payload = vec![7; arguments.size];
    let (mut cpu, mut began) = (cpu_time(), clock::now());
    for round in 0..arguments.warm_up + arguments.count {
        if round == arguments.warm_up {
            (cpu, began) = (cpu_time(), clock::now());
        }
        let start = clock::now();
        side.send(&payload)?;
        side.receive()?;
        if round >= arguments.warm_up {
            record(&mut latencies, clock::now().since(start));
        }
    }
    let seconds = clock::now().since(began).as_secs_f64();
    let own_cpu = cpu_time() - cpu;
    let mut report = Report::new("pingpong");
    let link = side.poller.links().into_iter().next().ok_or("the link is gone")?;
    report.set("provider", format!("{:?}", link.path).to_lowercase());
    report.set("reason", &link.reason);
    report.set("size_bytes", arguments.size);
    report.set("wait", format!("{:?}", arguments.wait).to_lowercase());
    report.latency("round trip", &latencies);
    report.set("round trips/s", arguments.count as f64 / seconds);
    report.set("cpu %, this side", 100.0 * own_cpu.as_secs_f64() / seconds);
    report.set("retransmits", link.counters.retransmits);
    report.set("rescues", side.poller.counters().rescues);
    report.print(arguments.json);
    other.end()?;
    Ok(())
}

/// Answers every message with one of the same size.
pub(crate) fn answer(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    end_with_parent();
    let mut side = Side::connect(arguments, 2)?;
    let payload = vec![8; arguments.size];
    loop {
        side.receive()?;
        side.send(&payload)?;
    }
}

fn words(arguments: &Arguments, own: SocketAddr, peer: SocketAddr) -> Vec<String> {
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let (provider, wait) = (word(&arguments.provider), word(&arguments.wait));
    let text = format!(
        "--provider {provider} --wait {wait} --size {} --cluster {} --addresses {own},{peer}",
        arguments.size, arguments.cluster
    );
    text.split(' ').map(str::to_owned).collect()
}

/// One end of the exchange.
struct Side {
    poller: Poller,
    log: LogWriter,
    link: LinkId,
    index: u64,
    cursor: u64,
}

impl Side {
    fn connect(arguments: &Arguments, node: u16) -> Result<Side, Box<dyn Error>> {
        let [first, second] = arguments.addresses[..] else {
            return Err("two addresses are needed".into());
        };
        let (own, peer) = if node == 1 { (first, second) } else { (second, first) };
        let me =
            Member { node: NodeId(node), incarnation: Incarnation(u64::from(std::process::id())) };
        let mut config = Config::new(&arguments.cluster, me, own);
        config.peers = vec![PeerConfig { node: NodeId(3 - node), addr: peer }];
        config.path = arguments.provider.policy();
        config.wait = arguments.wait.wait();
        let mut poller = Poller::new(config)?;
        let log = poller.log(GROUP);
        let deadline = clock::now() + CONNECT;
        let link = loop {
            let now = clock::now();
            poller.poll(now);
            if let Some(Event::Up { link, .. }) = poller.poll_event() {
                break link;
            }
            if now > deadline {
                return Err(format!(
                    "the two sides did not find each other within {} s",
                    CONNECT.as_secs()
                )
                .into());
            }
            poller.flush(now);
            poller.park(now, Some(deadline), &mut || false);
        };
        poller.attach(link, GROUP, 0);
        poller.open(link, GROUP, 0);
        poller.flush(clock::now());
        Ok(Side { poller, log, link, index: 0, cursor: 0 })
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), Box<dyn Error>> {
        let mut slot = self
            .log
            .reserve(payload.len())
            .map_err(|error| format!("no room in the log: {error:?}"))?;
        slot.copy_from_slice(payload);
        slot.commit();
        self.poller.committed(GROUP).ok_or("a committed record is not there")?;
        self.poller.publish(GROUP, self.index);
        self.index += 1;
        self.poller.flush(clock::now());
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let now = clock::now();
            self.poller.poll(now);
            while let Some(event) = self.poller.poll_event() {
                if let Event::Dead { evidence, .. } = event {
                    return Err(format!("the link died: {evidence:?}").into());
                }
            }
            if let Some(end) =
                self.poller.peek(self.link, GROUP, self.cursor).map(|record| record.end)
            {
                self.cursor = end;
                self.poller.release(self.link, GROUP, end);
                let released = self.poller.released(self.link, GROUP);
                self.poller.reclaim(GROUP, released);
                return Ok(());
            }
            self.poller.flush(now);
            self.poller.park(now, None::<Time>, &mut || false);
        }
    }
}
