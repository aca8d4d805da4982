//! Measurements over InfiniBand and RoCE.

use crate::fails;
#[cfg(feature = "verbs")]
use crate::{json, positive, skip};

#[test]
fn adapters_are_asked_for_where_there_may_be_some() {
    fails("pingpong --provider verbs --device rxe0", "rxe0,rxe1");
    fails("pingpong --provider udp --device rxe0,rxe1", "--provider verbs");
    fails("pingpong --provider verbs --compare raw", "--compare perftest");
    fails("bw --provider verbs --compare raw", "--compare perftest");
    if !cfg!(feature = "verbs") {
        fails("put --provider verbs", "--features verbs");
    }
}

/// In the guest of scripts/soft-roce-vm.
#[test]
#[cfg(feature = "verbs")]
fn adapters_carry_what_is_measured_beside_perftest() {
    if std::env::var_os("QUINTET_RXE").is_none() {
        return skip::skip("no adapters: run it with scripts/soft-roce-vm");
    }
    let said = json(
        "put --provider verbs --device rxe0,rxe1 --wait spin -n 100 --warm-up 10 --compare perftest --json",
    );
    assert_eq!(said["facts"]["provider"], "verbs", "{said:#}");
    assert_eq!(said["latencies"]["put_to_known"]["count"], 100, "{said:#}");
    assert!(positive(&said["figures"]["ratio_p50_to_ib_write_lat"]["value"]), "{said:#}");
    assert!(said["facts"]["compared_with"][0].as_str().expect("told").contains("-d rxe0"));
    for how in ["pingpong -n 50 --warm-up 5", "bw -n 20 --warm-up 0", "rate -n 1000 --warm-up 0"] {
        let said = json(&format!("{how} --provider verbs --device rxe0,rxe1 --json"));
        assert_eq!(said["facts"]["provider"], "verbs", "{how}: {said:#}");
    }
}
