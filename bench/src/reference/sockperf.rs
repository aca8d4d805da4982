//! sockperf: plain datagrams through the sockets interface.

use super::trial::{Kind, Measured, Names, Protocol, Question, Trial, mebibytes, words};
use crate::policy::{Provider, Waiting};
use std::error::Error;

/// Its smallest message, and the greatest that a datagram holds.
const SIZES: std::ops::RangeInclusive<usize> = 14..=65_507;

const NAMES: Names = Names {
    p50_us: "sockperf_rtt_p50_us",
    p99_us: "sockperf_rtt_p99_us",
    ratio_p50: "ratio_p50_to_sockperf",
    ratio_p99: "ratio_p99_to_sockperf",
    megabytes_per_s: "sockperf_sent_megabytes_per_s",
    ratio: "ratio_to_sockperf_sent",
};

pub(super) fn trials(question: &Question) -> Result<Vec<Trial>, Box<dyn Error>> {
    if question.provider != Provider::Udp || !SIZES.contains(&question.size) {
        let (least, most) = (SIZES.start(), SIZES.end());
        return Err(format!("sockperf is for --provider udp and {least} to {most} B").into());
    }
    let size = question.size;
    let (client, parse): (_, fn(&str) -> _) = match question.kind {
        Kind::RoundTrips(_) => (format!("ping-pong --full-rtt -t 2 -m {size}"), round_trip),
        Kind::Stream => (format!("throughput -t 2 -m {size}"), sent),
    };
    // One who spins looks again and again; one who sleeps does so in recvfrom.
    let wait = if question.wait == Waiting::Spin { " --nonblocked" } else { "" };
    Ok(vec![Trial {
        program: "sockperf",
        package: "sockperf",
        environment: None,
        transport: Protocol::Udp,
        common: Vec::new(),
        server: words(&format!("server -i 127.0.0.1{wait}")),
        client: words(&format!("{client} -i 127.0.0.1{wait}")),
        port_flag: "-p",
        parse,
        names: NAMES,
    }])
}

fn round_trip(text: &str) -> Option<Measured> {
    let of = |name: &str| {
        let line = text.lines().find(|line| line.contains(&format!("percentile {name} =")))?;
        line.rsplit('=').next()?.trim().parse().ok()
    };
    Some(Measured::RoundTrip { p50_us: of("50.000")?, p99_us: Some(of("99.000")?) })
}

/// What was sent: nothing tells what arrived.
fn sent(text: &str) -> Option<Measured> {
    let (_, rest) = text.split_once("BandWidth is ")?;
    let number: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(mebibytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_understood() {
        let text = "sockperf: ---> percentile 99.900 = 3848.164\n\
                    sockperf: ---> percentile 99.000 =   38.016\n\
                    sockperf: ---> percentile 50.000 =   14.741\n";
        let expected = Measured::RoundTrip { p50_us: 14.741, p99_us: Some(38.016) };
        assert_eq!(round_trip(text), Some(expected));
        assert_eq!(round_trip("sockperf: No messages were received from the server."), None);
        let text = "sockperf: Summary: BandWidth is 100.000 MBps (800.000 Mbps)\n";
        assert_eq!(sent(text), Some(Measured::Stream(104.857_6)));
    }
}
