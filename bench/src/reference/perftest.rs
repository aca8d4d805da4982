//! perftest: RDMA writes, where there is an adapter. It polls, whatever `--wait` says.

use super::trial::{Kind, Measured, Names, Protocol, Question, Trial, mebibytes, words};
use std::error::Error;
use std::path::Path;

const NAMES: Names = Names {
    p50_us: "ib_write_lat_rtt_p50_us",
    p99_us: "ib_write_lat_rtt_p99_us",
    ratio_p50: "ratio_p50_to_ib_write_lat",
    ratio_p99: "ratio_p99_to_ib_write_lat",
    megabytes_per_s: "ib_write_bw_megabytes_per_s",
    ratio: "ratio_to_ib_write_bw",
};

pub(super) fn trials(question: &Question) -> Result<Vec<Trial>, Box<dyn Error>> {
    let adapters = Path::new("/sys/class/infiniband");
    if !adapters.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err("perftest needs an InfiniBand or RoCE adapter, and this host has none; for a \
                    look without one: modprobe rdma_rxe, rdma link add rxe0 type rxe netdev IFACE"
            .into());
    }
    let size = question.size;
    let (program, common, parse): (_, _, fn(&str) -> _) = match question.kind {
        Kind::RoundTrips(count) => {
            ("ib_write_lat", format!("-F -s {size} -n {}", count.max(5)), round_trip)
        }
        Kind::Stream => ("ib_write_bw", format!("-F -s {size} -D 2"), stream),
    };
    let on = |side: usize| {
        question.devices.get(side).map_or(Vec::new(), |device| words(&format!("-d {device}")))
    };
    Ok(vec![Trial {
        program,
        package: "perftest",
        environment: None,
        transport: Protocol::Tcp,
        common: words(&common),
        server: on(1),
        client: [on(0), words("127.0.0.1")].concat(),
        port_flag: "-p",
        parse,
        names: NAMES,
    }])
}

/// The line of numbers below the head.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    let line = lines.nth(1)?;
    line.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

/// Half round trips: least, most, typical, mean, deviation, 99 %, 99.9 %.
fn round_trip(text: &str) -> Option<Measured> {
    let numbers = numbers(text)?;
    let (typical, p99) = (numbers.get(4)?, numbers.get(7)?);
    Some(Measured::RoundTrip { p50_us: 2.0 * typical, p99_us: Some(2.0 * p99) })
}

/// Peak, then mean.
fn stream(text: &str) -> Option<Measured> {
    Some(mebibytes(*numbers(text)?.get(3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_table_is_understood() {
        let text = "-----\n #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    \
                    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec]\n \
                    64      1000          4.10           90.00        4.50          4.61        \
                    1.00     6.25                    80.00\n-----\n";
        let expected = Measured::RoundTrip { p50_us: 9.0, p99_us: Some(12.5) };
        assert_eq!(round_trip(text), Some(expected));
        let text = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                    65536      5000             1200.00            100.00           0.016\n";
        assert_eq!(stream(text), Some(Measured::Stream(104.857_6)));
        assert_eq!(round_trip(" Unable to find the Infiniband/RoCE device"), None);
    }
}
