//! What can be told of each measurement, so that a `--fail-if` on something else is refused before anything is measured.

use crate::report::Report;

/// Names of latencies and of figures.
pub(super) struct Names {
    pub(super) measurement: &'static str,
    pub(super) latencies: &'static [&'static str],
    pub(super) figures: &'static [&'static str],
}

/// What is told of every latency.
pub(super) const STATISTICS: [&str; 8] =
    ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max"];

/// Of that measurement, with whatever options.
pub(super) fn of(measurement: &'static str) -> Names {
    let (latencies, figures): (&[_], &[_]) = match measurement {
        "pingpong" | "put" => (&ROUND_TRIPS, &OF_ROUND_TRIPS),
        "rate" | "bw" => (&[], &OF_STREAMS),
        "incast" => (&["sent_to_seen"], &OF_INCAST),
        "detect" => (&["fault_to_dead", "fault_to_suspected"], &OF_DETECT),
        "multicast" => (&MULTICAST, &OF_MULTICAST),
        _ => (&[], &[]),
    };
    Names { measurement, latencies, figures }
}

impl Names {
    /// Whether all that the report tells is among them.
    pub(super) fn have(&self, report: &Report) -> bool {
        let (latencies, figures) = (report.latencies(), report.figures());
        latencies.iter().all(|(name, _)| self.latencies.contains(name))
            && figures.iter().all(|(name, _)| self.figures.contains(name))
    }
}

const ROUND_TRIPS: [&str; 18] = [
    "rtt",
    "half_rtt",
    "put_to_known",
    "rtt_from_intended",
    "half_rtt_from_intended",
    "send_delay",
    "after_1ms",
    "after_idle",
    "raw_after_1ms",
    "raw_after_idle",
    "raw_spinning_rtt",
    "raw_futex_rtt",
    "raw_busy_poll_rtt",
    "raw_blocking_rtt",
    "stage_commit",
    "stage_flush",
    "stage_until_taken",
    "stage_release",
];

const OF_ROUND_TRIPS: [&str; 40] = [
    "own_cpu_percent",
    "other_cpu_percent",
    "stolen_percent",
    "retransmits",
    "rescues",
    "ratio_p50",
    "ratio_p99",
    "ratio_after_idle",
    "ratio_after_idle_to_after_1ms",
    "raw_ratio_after_idle",
    "raw_ratio_after_idle_to_after_1ms",
    "answers_per_s",
    "under_way_max",
    "pairs",
    "round_trips_per_s",
    "cpu_us_per_round_trip",
    "all_cpu_percent",
    "worst_pair_p99_us",
    "parks",
    "yields",
    "sockperf_rtt_p50_us",
    "sockperf_rtt_p99_us",
    "ratio_p50_to_sockperf",
    "ratio_p99_to_sockperf",
    "ucx_posix_rtt_p50_us",
    "ucx_posix_rtt_p99_us",
    "ratio_p50_to_ucx_posix",
    "ucx_sysv_rtt_p50_us",
    "ucx_sysv_rtt_p99_us",
    "ratio_p50_to_ucx_sysv",
    "ucx_tcp_rtt_p50_us",
    "ucx_tcp_rtt_p99_us",
    "ratio_p50_to_ucx_tcp",
    "ib_write_lat_rtt_p50_us",
    "ib_write_lat_rtt_p99_us",
    "ratio_p50_to_ib_write_lat",
    "ratio_p99_to_ib_write_lat",
    "ratio_p99_to_ucx_posix",
    "ratio_p99_to_ucx_sysv",
    "ratio_p99_to_ucx_tcp",
];

const OF_STREAMS: [&str; 36] = [
    "messages_per_s",
    "megabytes_per_s",
    "own_cpu_percent",
    "other_cpu_percent",
    "stolen_percent",
    "retransmits",
    "raw_copy_messages_per_s",
    "raw_copy_megabytes_per_s",
    "ratio_to_raw_copy",
    "raw_gso_messages_per_s",
    "raw_gso_megabytes_per_s",
    "ratio_to_raw_gso",
    "raw_gso_aead_megabytes_per_s",
    "ratio_to_raw_gso_aead",
    "raw_gso_1400_megabytes_per_s",
    "ratio_to_raw_gso_1400",
    "raw_gso_8192_megabytes_per_s",
    "ratio_to_raw_gso_8192",
    "raw_gso_aead_1400_megabytes_per_s",
    "ratio_to_raw_gso_aead_1400",
    "raw_gso_aead_8192_megabytes_per_s",
    "ratio_to_raw_gso_aead_8192",
    "raw_gso_aead_65488_megabytes_per_s",
    "ratio_to_raw_gso_aead_65488",
    "raw_gso_zero_copy_8192_megabytes_per_s",
    "ratio_to_raw_gso_zero_copy_8192",
    "sockperf_sent_megabytes_per_s",
    "ratio_to_sockperf_sent",
    "ucx_posix_megabytes_per_s",
    "ratio_to_ucx_posix",
    "ucx_sysv_megabytes_per_s",
    "ratio_to_ucx_sysv",
    "ucx_tcp_megabytes_per_s",
    "ratio_to_ucx_tcp",
    "ib_write_bw_megabytes_per_s",
    "ratio_to_ib_write_bw",
];

const OF_INCAST: [&str; 11] = [
    "messages_per_s",
    "megabytes_per_s",
    "fairness",
    "slowest_messages_per_s",
    "fastest_messages_per_s",
    "senders_cpu_seconds",
    "datagrams_dropped",
    "own_cpu_percent",
    "other_cpu_percent",
    "stolen_percent",
    "retransmits",
];

const OF_DETECT: [&str; 6] = [
    "suspected_before",
    "by_process_exited",
    "by_port_unreachable",
    "by_heartbeat_missed",
    "by_other_evidence",
    "retransmits",
];

const MULTICAST: [&str; 6] = [
    "self_delivery",
    "stage_commit",
    "stage_publish",
    "stage_visible",
    "stage_stable",
    "stage_deliver",
];

const OF_MULTICAST: [&str; 5] = [
    "messages_per_s",
    "megabytes_per_s",
    "own_cpu_percent",
    "cpu_seconds_per_million",
    "retransmits",
];
