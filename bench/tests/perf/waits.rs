//! How long a message waits: for one of few cores, or for those that have slept for long.

use crate::{json, perf, positive};
use serde_json::Value;

#[test]
fn all_pairs_ping_each_other_at_once() {
    for (how, nodes) in [
        ("pingpong --provider shm --nodes 4 --wait adaptive -D 0.5", 4),
        ("pingpong --provider udp --nodes 3 -n 200", 3),
        // Not all that is under way has room in the log at a time.
        ("pingpong --provider shm --nodes 3 --size 2000000 -n 50", 3),
        ("put --provider shm --nodes 2 --wait block -n 100", 2),
    ] {
        let said = json(&format!("{how} --warm-up 20 --json"));
        let of = |figure: &str| said["figures"][figure]["value"].as_f64().expect(figure);
        assert_eq!(said["parameters"]["nodes"], nodes);
        assert_eq!(of("pairs"), f64::from(nodes * (nodes - 1)), "{how}: {said:#}");
        let about = said["about"].as_str().expect("told");
        let count = said["latencies"][about]["count"].as_f64().expect("told");
        let of_first = said["parameters"]["count"].as_f64().unwrap_or(1.0);
        assert!(count > of_first, "the others' round trips count too: {how}: {said:#}");
        assert!(positive(&said["figures"]["round_trips_per_s"]["value"]), "{said:#}");
        assert!(of("worst_pair_p99_us") * 1e3 >= 0.99 * p99(&said, about), "{said:#}");
        assert_eq!(of("rescues"), 0.0, "{how}: {said:#}");
    }
    for wrong in ["--nodes 1", "--nodes 3 --rate 5", "--nodes 3 --size 7", "--nodes 2 --stages"] {
        assert!(!perf(&format!("pingpong {wrong} -n 5")).status.success(), "{wrong}");
    }
}

fn p99(said: &Value, latency: &str) -> f64 {
    said["latencies"][latency]["p99_ns"].as_f64().expect(latency)
}

#[test]
fn a_message_after_idleness_is_held_against_those_without() {
    for (how, raw) in [
        ("pingpong --provider shm --wait block --compare raw", true),
        ("pingpong --provider udp --compare raw", true),
        ("put --provider udp", false),
    ] {
        let said = json(&format!("{how} -n 50 --warm-up 5 --idle 0.2 --idle-times 2 --json"));
        assert_eq!(said["parameters"]["idle_s"], 0.2);
        for (prefix, is_there) in [("", true), ("raw_", raw)] {
            let series = &said["latencies"][format!("{prefix}after_idle")];
            assert_eq!(series["count"].as_u64(), is_there.then_some(2), "{how}: {said:#}");
            // The silence itself is no part of it.
            assert!(!is_there || series["max_ns"].as_f64() < Some(0.2e9), "{how}: {said:#}");
            let ratio = &said["figures"][format!("{prefix}ratio_after_idle")]["value"];
            assert_eq!(positive(ratio), is_there, "{how}: {said:#}");
        }
    }
    assert!(!perf("pingpong --idle-times 2 -n 5").status.success(), "how long?");
}
