//! How long a message waits, for one of few cores.

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
