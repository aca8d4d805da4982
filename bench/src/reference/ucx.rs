//! UCX: tagged messages through shared memory of two kinds, or TCP. It polls, whatever `--wait` says.

use super::trial::{Kind, Measured, Names, Protocol, Question, Trial, mebibytes, words};
use crate::policy::Provider;
use std::error::Error;

/// Messages of a stream: some hundred megabytes, but not for ever.
const STREAM_BYTES: usize = 256 << 20;
const STREAM_MESSAGES_MAX: usize = 1_000_000;

const POSIX: Names = Names {
    p50_us: "ucx_posix_rtt_p50_us",
    p99_us: "ucx_posix_rtt_p99_us",
    ratio_p50: "ratio_p50_to_ucx_posix",
    ratio_p99: "ratio_p99_to_ucx_posix",
    megabytes_per_s: "ucx_posix_megabytes_per_s",
    ratio: "ratio_to_ucx_posix",
};
const SYSV: Names = Names {
    p50_us: "ucx_sysv_rtt_p50_us",
    p99_us: "ucx_sysv_rtt_p99_us",
    ratio_p50: "ratio_p50_to_ucx_sysv",
    ratio_p99: "ratio_p99_to_ucx_sysv",
    megabytes_per_s: "ucx_sysv_megabytes_per_s",
    ratio: "ratio_to_ucx_sysv",
};
const TCP: Names = Names {
    p50_us: "ucx_tcp_rtt_p50_us",
    p99_us: "ucx_tcp_rtt_p99_us",
    ratio_p50: "ratio_p50_to_ucx_tcp",
    ratio_p99: "ratio_p99_to_ucx_tcp",
    megabytes_per_s: "ucx_tcp_megabytes_per_s",
    ratio: "ratio_to_ucx_tcp",
};

pub(super) fn trials(question: &Question) -> Result<Vec<Trial>, Box<dyn Error>> {
    let transports = match question.provider {
        Provider::Shm => vec![("posix", POSIX), ("sysv", SYSV)],
        Provider::Udp => vec![("tcp", TCP)],
        Provider::Verbs => {
            return Err("over adapters the reference is perftest: --compare perftest".into());
        }
    };
    let size = question.size;
    let (test, parse): (_, fn(&str) -> _) = match question.kind {
        Kind::RoundTrips(count) => (format!("-t tag_lat -n {count}"), round_trip),
        Kind::Stream => {
            let count = (STREAM_BYTES / size).clamp(1000, STREAM_MESSAGES_MAX);
            (format!("-t tag_bw -n {count}"), stream)
        }
    };
    let trial = |(tls, names)| Trial {
        program: "ucx_perftest",
        package: "ucx-utils",
        environment: Some(("UCX_TLS", tls)),
        transport: Protocol::Tcp,
        common: Vec::new(),
        server: Vec::new(),
        client: words(&format!("127.0.0.1 {test} -s {size} -v -f")),
        port_flag: "-p",
        parse,
        names,
    };
    Ok(transports.into_iter().map(trial).collect())
}

/// By the head of its columns; the last line is the outcome.
fn column(text: &str, is_it: impl Fn(&str) -> bool) -> Option<f64> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("iterations,"));
    let at = lines.next()?.split(',').position(is_it)?;
    lines.filter(|line| line.contains(',')).last()?.split(',').nth(at)?.trim().parse().ok()
}

/// Its latency is half a round trip.
fn round_trip(text: &str) -> Option<Measured> {
    let half = column(text, |name| name.contains("percentile"))?;
    Some(Measured::RoundTrip { p50_us: 2.0 * half, p99_us: None })
}

fn stream(text: &str) -> Option<Measured> {
    Some(mebibytes(column(text, |name| name == "overall_bw")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_columns_are_found_by_their_head() {
        let head = "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr";
        let text = format!("[1] WARN something, else\n{head}\n20000,0.165,0.2,0.3,4.0,100.0,6,7\n");
        let expected = Measured::RoundTrip { p50_us: 0.33, p99_us: None };
        assert_eq!(round_trip(&text), Some(expected));
        assert_eq!(stream(&text), Some(Measured::Stream(104.857_6)));
        assert_eq!(round_trip(&format!("{head}\n")), None);
        assert_eq!(round_trip("connection refused"), None);
    }
}
