//! `quintet-perf` as its users start it. What it says is checked, not how fast anything was.

mod adapters;
mod refusals;
mod waits;

#[cfg(feature = "verbs")]
#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

fn perf(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quintet-perf"))
        .args(arguments.split(' '))
        .output()
        .expect("the program starts")
}

fn json(arguments: &str) -> Value {
    let output = perf(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// It is refused before anything is measured, in these words among others.
fn fails(how: &str, said: &str) {
    let output = perf(&format!("{how} -n 5"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains(said), "{how}: {error}");
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0)
}

#[test]
fn round_trips_are_compared_with_raw_ones_in_the_same_run() {
    for (how, raw) in [
        ("--provider shm --wait block", "raw_futex_rtt"),
        ("--provider udp --wait adaptive", "raw_blocking_rtt"),
        ("--provider udp --wait spin", "raw_busy_poll_rtt"),
    ] {
        let said = json(&format!("pingpong {how} -n 50 --warm-up 5 --compare raw --json"));
        assert_eq!(said["facts"]["compared_with"], raw);
        assert!(positive(&said["figures"]["ratio_p50"]["value"]), "{said:#}");
        for series in ["rtt", "half_rtt", raw] {
            assert_eq!(said["latencies"][series]["count"], 50, "{series}: {said:#}");
        }
        assert_eq!(said["facts"]["provider"].as_str(), how.split(' ').nth(1));
        assert!(
            said["parameters"]["cores"][0].is_u64(),
            "pinned, to be on the same cores: {said:#}"
        );
    }
}

#[test]
fn the_waits_of_two_on_one_core_are_compared_with_sleeping_only() {
    let core =
        json("pingpong --wait block -n 5 --warm-up 1 --compare raw --json")["parameters"]["cores"]
            [0]
        .as_u64()
        .expect("a core");
    let said = json(&format!(
        "pingpong --wait block -n 50 --warm-up 5 --compare raw --json --pin {core},{core}"
    ));
    assert_eq!(said["latencies"]["raw_futex_rtt"]["count"], 50);
    assert!(said["latencies"].get("raw_spinning_rtt").is_none(), "{said:#}");
}

#[test]
fn several_runs_have_intervals_and_every_form_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let common = "pingpong --wait adaptive -n 40 --warm-up 5";
    let said = json(&format!(
        "{common} --json --repeat 3 --svg {} --hlog {} --samples {} --hgrm {}",
        path("svg"),
        path("log"),
        path("samples"),
        path("plot")
    ));
    assert_eq!((&said["runs"], &said["latencies"]["rtt"]["count"]), (&3.into(), &120.into()));
    assert!(said["latencies"]["rtt"]["plus_minus"]["p50_ns"].is_f64(), "{said:#}");
    let read = |name: &str| std::fs::read_to_string(path(name)).expect(name);
    assert!(read("svg").contains("pingpong, shm, 64 B, adaptive"));
    assert!(read("plot.rtt.hgrm").contains("Total count    =          120"));
    assert_eq!(read("log").lines().filter(|line| line.starts_with("Tag=rtt,")).count(), 3);
    assert!(read("samples").lines().filter(|line| line.parse::<u64>().is_ok()).count() == 120);
    let csv = perf(&format!("{common} --csv"));
    assert!(String::from_utf8_lossy(&csv.stdout).starts_with("size_bytes,run,name,figure,value"));
}

#[test]
fn a_measurement_that_is_not_good_enough_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("baseline.json");
    let common = "pingpong --wait adaptive -n 40 --warm-up 5";
    std::fs::write(&file, perf(&format!("{common} --json")).stdout).expect("written");
    let with = |condition: &str| {
        let output = perf(&format!("{common} --baseline {} --fail-if {condition}", file.display()));
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (passed, said) = with("p50>1000s");
    assert!(passed && said.contains("since the baseline"), "{said}");
    let (passed, said) = with("p50>=0ns");
    assert!(!passed && said.contains("--fail-if 'p50>=0ns'"), "{said}");
    let (passed, said) = with("p50>=0x");
    assert!(!passed && said.contains("p50>=0x"), "{said}");
    let (passed, said) = with("p51>1us");
    assert!(!passed && said.contains("there is no p51"), "{said}");
}

#[test]
fn messages_on_schedule_are_all_answered_and_timed_from_the_schedule() {
    for (provider, arrivals) in [("shm", "fixed"), ("udp", "poisson")] {
        let said = json(&format!(
            "pingpong --provider {provider} --rate 5000 --arrivals {arrivals} -n 200 --warm-up 50 --json"
        ));
        assert_eq!(said["about"], "rtt_from_intended");
        for series in ["rtt_from_intended", "half_rtt_from_intended", "send_delay"] {
            assert_eq!(said["latencies"][series]["count"], 200, "{said:#}");
        }
    }
}

/// At a rate that nothing can carry all messages are due at once, so the last one waits for all others: as long as the
/// whole run, whatever the machine. Timed from its sending it would have waited for those in the log only.
#[test]
fn waiting_for_ones_turn_counts() {
    let count = 300_000;
    let said = json(&format!("pingpong --rate 1000000000 -n {count} --warm-up 0 --json"));
    let longest = said["latencies"]["rtt_from_intended"]["max_ns"].as_f64().expect("told");
    let rate = said["figures"]["answers_per_s"]["value"].as_f64().expect("told");
    assert!(longest > 0.5e9 * f64::from(count) / rate, "{said:#}");
}

#[test]
fn a_put_is_answered_by_a_word() {
    for how in ["--provider shm --wait block", "--provider udp", "--provider shm --size 100000"] {
        let said = json(&format!("put {how} -n 300 --warm-up 20 --json"));
        assert_eq!((&said["measurement"], &said["about"]), (&"put".into(), &"put_to_known".into()));
        assert_eq!(said["latencies"]["put_to_known"]["count"], 300, "{said:#}");
        assert!(said["latencies"].get("half_rtt").is_none(), "it is no round trip: {said:#}");
    }
    assert!(!perf("put --rate 1000 -n 5").status.success());
}

#[test]
fn a_measurement_ends_by_number_or_by_time() {
    let said = json("rate --provider shm -n 20000 --warm-up 0.01 --json");
    assert_eq!(said["parameters"]["count"], 20000);
    assert!(positive(&said["figures"]["messages_per_s"]["value"]), "{said:#}");
    for how in ["--provider shm --compare raw --wait block", "--provider udp --rate 500"] {
        let said = json(&format!("pingpong {how} -D 0.2 --warm-up 5 --json"));
        let about = said["about"].as_str().expect("told");
        let count = said["latencies"][about]["count"].as_u64().expect("told");
        match how.contains("rate") {
            true => assert_eq!(count, 100, "{said:#}"),
            false => assert_eq!(said["latencies"]["raw_futex_rtt"]["count"], count, "{said:#}"),
        }
        assert!(count > 0 && said["parameters"]["count"].is_null(), "{said:#}");
    }
    assert!(!perf("pingpong -n 5 -D 1").status.success(), "one of both");
    assert!(!perf("bw -n 5 -D 1").status.success(), "one of both");
}

#[test]
fn a_schedule_needs_a_rate() {
    for wrong in ["--rate 0", "--rate -5", "--rate nan", "--arrivals poisson"] {
        assert!(!perf(&format!("pingpong {wrong} -n 5")).status.success(), "{wrong}");
    }
}

#[test]
fn streams_are_counted_where_they_arrive_beside_raw_ones() {
    for (how, ratios) in [
        ("rate --provider shm", &["ratio_to_raw_copy"][..]),
        ("rate --provider udp --size 100", &["ratio_to_raw_gso", "ratio_to_raw_gso_aead"]),
        ("bw --provider shm", &["ratio_to_raw_copy"]),
        (
            "bw --provider udp",
            &[
                "ratio_to_raw_gso_1400",
                "ratio_to_raw_gso_8192",
                "ratio_to_raw_gso_aead_1400",
                "ratio_to_raw_gso_aead_8192",
                "ratio_to_raw_gso_zero_copy_8192",
            ],
        ),
    ] {
        let said = json(&format!("{how} --duration 0.05 --warm-up 0.01 --compare raw --json"));
        for figure in ["messages_per_s", "megabytes_per_s"].iter().chain(ratios) {
            assert!(positive(&said["figures"][*figure]["value"]), "{figure} of {how}: {said:#}");
        }
        let of = |figure: &str| said["figures"][figure]["value"].as_f64().expect("told");
        let size = said["parameters"]["size_bytes"].as_f64().expect("told");
        let bytes = of("messages_per_s") * size / 1e6;
        assert!((of("megabytes_per_s") / bytes - 1.0).abs() < 1e-6, "{said:#}");
    }
}

/// Programs that say what the real ones say; the first line tells what they were asked.
fn with_programs(dir: &std::path::Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quintet-perf"))
        .args(arguments.split(' '))
        .env("PATH", dir)
        .output()
        .expect("the program starts")
}

fn program(dir: &std::path::Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn what_others_measure_with_runs_beside_and_its_words_are_compared() {
    let dir = tempfile::tempdir().expect("a directory");
    program(
        dir.path(),
        "sockperf",
        r#"case "$*" in
            "ping-pong --full-rtt -t 2 -m 64 -i 127.0.0.1 -p "*) ;;
            server*) exit 0 ;;
            *) echo "asked for $*"; exit 1 ;;
        esac
        echo "sockperf: ---> percentile 99.000 = 2000.000"
        echo "sockperf: ---> percentile 50.000 = 0.001""#,
    );
    program(
        dir.path(),
        "ucx_perftest",
        r#"[ "$1" = 127.0.0.1 ] || exit 0
        [ "$UCX_TLS" = sysv ] && lat=1000000 || lat=0.0005
        echo iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr
        echo "9,$lat,3,3,4,5,6,7""#,
    );
    for (how, less, more) in [
        ("--provider udp --compare sockperf", "ratio_p99_to_sockperf", "ratio_p50_to_sockperf"),
        ("--provider shm --compare ucx", "ratio_p50_to_ucx_sysv", "ratio_p50_to_ucx_posix"),
    ] {
        let output = with_programs(
            dir.path(),
            &format!("pingpong {how} --wait block -n 50 --warm-up 5 --json"),
        );
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let said: Value = serde_json::from_slice(&output.stdout).expect(&error);
        let of = |figure: &str| said["figures"][figure]["value"].as_f64().expect(figure);
        assert!(of(more) > 100.0, "its median is a nanosecond: {said:#}");
        assert!(of(less) < of(more) / 10.0, "{said:#}");
        let command = said["facts"]["compared_with"][0].as_str().expect("told");
        assert!(command.contains(" -p ") && command.contains("64"), "{command}");
    }
    let said = with_programs(dir.path(), "bw --provider shm --compare ucx --duration 0.05 --json");
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let of = |figure: &str| said["figures"][figure]["value"].as_f64().expect(figure);
    assert!((of("ucx_posix_megabytes_per_s") - 5.242_88).abs() < 1e-9, "{said:#}");
    let ratio = of("megabytes_per_s") / of("ucx_posix_megabytes_per_s");
    assert!((of("ratio_to_ucx_posix") / ratio - 1.0).abs() < 1e-9, "{said:#}");
}

#[test]
fn what_others_measure_with_and_is_not_there_is_named_with_its_package() {
    let dir = tempfile::tempdir().expect("a directory");
    let fails = |how: &str, said: &str| {
        let output = with_programs(dir.path(), &format!("{how} --wait block -n 5 --warm-up 1"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(said), "{how}: {error}");
    };
    fails("pingpong --provider udp --compare sockperf", "apt-get install sockperf");
    fails("pingpong --provider udp --compare ucx", "apt-get install ucx-utils");
    fails("pingpong --provider shm --compare sockperf", "--provider udp");
    fails("pingpong --provider udp --compare ucx --host 127.0.0.1:9", "--compare raw");
    program(dir.path(), "ucx_perftest", "echo what is that?; exit 3");
    fails("pingpong --provider udp --compare ucx", "what is that?");
    if !std::path::Path::new("/sys/class/infiniband").exists() {
        fails("pingpong --compare perftest", "needs an InfiniBand or RoCE adapter");
    }
}

#[test]
fn several_threads_write_into_one_nodes_log() {
    for (how, threads) in [
        ("rate --provider shm --threads 3 --duration 0.2 --warm-up 0.05", 3),
        ("bw --provider udp --size 20000 --threads 2 --duration 0.2 --warm-up 0.05", 2),
        ("multicast --mode rate --members 2 --threads 3 --duration 1", 3),
    ] {
        let said = json(&format!("{how} --json"));
        assert!(positive(&said["figures"]["messages_per_s"]["value"]), "{how}: {said:#}");
        let of_each: Vec<u64> =
            serde_json::from_value(said["facts"]["messages_of_each_thread"].clone()).expect("told");
        assert_eq!(of_each.len(), threads, "{how}: {said:#}");
        // What is counted where it arrives was written by these threads.
        let seconds = said["parameters"]["duration_s"].as_f64().expect("told");
        let arrived = said["figures"]["messages_per_s"]["value"].as_f64().expect("told") * seconds;
        let written = of_each.iter().sum::<u64>() as f64;
        assert!(written >= 0.9 * arrived, "{how}: {written} of {arrived}: {said:#}");
    }
}

#[test]
fn many_send_to_one_and_each_has_its_share() {
    for (how, senders) in [
        ("--provider shm -N 3", 3),
        ("--provider udp -N 2", 2),
        ("--provider udp -N 3 --rate 300 --arrivals poisson", 3),
    ] {
        let said = json(&format!("incast {how} --duration 0.3 --warm-up 0.1 --json"));
        let of = |figure: &str| said["figures"][figure]["value"].as_f64().expect(figure);
        let each: Vec<f64> =
            serde_json::from_value(said["facts"]["messages_per_s_of_each"].clone()).expect("told");
        assert_eq!(each.len(), senders, "{how}: {said:#}");
        assert!(each.iter().all(|rate| *rate > 0.0), "{how}: {said:#}");
        assert!((each.iter().sum::<f64>() / of("messages_per_s") - 1.0).abs() < 0.01, "{said:#}");
        let fairness = of("fairness");
        assert!(fairness > 1.0 / senders as f64 && fairness <= 1.0 + 1e-9, "{how}: {said:#}");
        assert!(of("slowest_messages_per_s") <= of("fastest_messages_per_s"), "{said:#}");
        assert_eq!(said["about"], "sent_to_seen");
        let count = said["latencies"]["sent_to_seen"]["count"].as_f64().expect("told");
        assert!(count >= 1.0 && positive(&said["latencies"]["sent_to_seen"]["p99_ns"]), "{said:#}");
        assert_eq!(
            said["figures"]["datagrams_dropped"]["value"].is_f64(),
            how.contains("udp"),
            "{said:#}"
        );
    }
}

#[test]
#[cfg(feature = "faults")]
fn what_a_bad_network_takes_is_sent_again_and_counted() {
    for (how, arrives) in [
        ("pingpong --provider udp --loss 5 --duplicate 2 --reorder 2 -n 300 --warm-up 10", 300),
        ("bw --provider udp --loss 2 --duration 0.5 --warm-up 0", 0),
        ("incast --provider udp -N 2 --loss 2 --duration 0.5 --warm-up 0.1", 0),
    ] {
        let said = json(&format!("{how} --json"));
        assert!(positive(&said["figures"]["retransmits"]["value"]), "{how}: {said:#}");
        assert!(positive(&said["parameters"]["network"]["loss"]), "{how}: {said:#}");
        if arrives > 0 {
            assert_eq!(said["latencies"]["rtt"]["count"], arrives, "{how}: {said:#}");
        }
    }
}

#[test]
fn a_bad_network_is_refused_where_it_cannot_be_made() {
    fails("pingpong --provider shm --loss 5", "--provider udp");
    fails("pingpong --provider udp --loss 95", "at most 90");
    if !cfg!(feature = "faults") {
        fails("pingpong --provider udp --reorder 0.1", "--features faults");
    }
}

#[test]
fn a_death_is_told_with_its_evidence() {
    for (how, evidence) in [
        ("--provider shm --fault kill --memory-mib 8", &["by_process_exited"][..]),
        ("--provider shm --fault freeze", &["by_heartbeat_missed"]),
        ("--provider udp --fault kill", &["by_port_unreachable", "by_heartbeat_missed"]),
        ("--provider udp --fault freeze", &["by_heartbeat_missed"]),
    ] {
        let said = json(&format!("detect {how} -n 2 --json"));
        let of = |name: &&str| said["figures"][*name]["value"].as_f64().expect("told");
        assert_eq!(evidence.iter().map(of).sum::<f64>(), 2.0, "{how}: {said:#}");
        assert_eq!(said["latencies"]["fault_to_dead"]["count"], 2);
        assert_eq!(said["facts"]["provider"].as_str(), how.split(' ').nth(1));
    }
}

#[test]
fn stages_are_told_for_every_round_trip_that_counts() {
    let said = json("pingpong --wait adaptive --stages -n 30 --warm-up 5 --json");
    assert_eq!(said["about"], "rtt");
    for stage in ["stage_commit", "stage_flush", "stage_until_taken", "stage_release"] {
        assert_eq!(said["latencies"][stage]["count"], 30, "{stage}: {said:#}");
    }
    let said = json("multicast --members 3 --provider shm --stages --duration 1 --json");
    let of = |latency: &str, what: &str| said["latencies"][latency][what].as_f64().expect(latency);
    let stages =
        ["commit", "publish", "visible", "stable", "deliver"].map(|s| format!("stage_{s}"));
    let mut sum = 0.0;
    for stage in &stages {
        assert_eq!(of(stage, "count"), of("self_delivery", "count"), "{stage}: {said:#}");
        sum += of(stage, "mean_ns");
    }
    let ratio = sum / of("self_delivery", "mean_ns");
    assert!((ratio - 1.0).abs() < 0.01, "each begins where the one before it ends: {said:#}");
    assert!(!perf("multicast --mode rate --stages --duration 1").status.success());
}

#[test]
fn all_sizes_are_measured_a_report_each() {
    for (how, waits) in [
        ("pingpong --provider shm -n 5 --warm-up 1", "--wait block"),
        ("pingpong --provider udp -n 5 --warm-up 1", "--compare raw --wait block"),
        ("bw --provider shm --duration 0.01 --warm-up 0", "--wait adaptive"),
    ] {
        let output = perf(&format!("{how} {waits} --all-sizes --json"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{how}: {error}");
        let sizes: Vec<u64> = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter::<Value>()
            .map(|said| said.expect("JSON")["parameters"]["size_bytes"].as_u64().expect("told"))
            .collect();
        assert_eq!((sizes.len(), sizes[0], sizes[9]), (10, 8, 1 << 20), "{how}: {sizes:?}");
        assert!(sizes.is_sorted(), "{sizes:?}");
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quintet-perf"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("where").to_owned();
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it still served");
        self.child.wait().expect("it ends");
    }
}

#[test]
fn a_server_answers_one_measurement_after_another_with_the_clients_options() {
    let server = Server::start();
    let host = format!("--host {}", server.address);
    let said = json(&format!(
        "pingpong --provider udp {host} --size 99 -n 30 --warm-up 3 --repeat 2 --json"
    ));
    assert_eq!(said["latencies"]["rtt"]["count"], 60, "{said:#}");
    let said = json(&format!("rate --provider udp {host} --duration 0.05 --warm-up 0 --json"));
    assert!(positive(&said["figures"]["messages_per_s"]["value"]), "{said:#}");
    let said = json(&format!(
        "pingpong --provider udp {host} -n 20 --warm-up 2 --wait block --compare raw --json"
    ));
    assert_eq!(said["latencies"]["raw_blocking_rtt"]["count"], 20, "{said:#}");
    assert!(positive(&said["figures"]["ratio_p50"]["value"]), "{said:#}");
    let said =
        json(&format!("bw --provider udp {host} --duration 0.05 --warm-up 0 --compare raw --json"));
    assert!(positive(&said["figures"]["ratio_to_raw_gso_aead_8192"]["value"]), "{said:#}");
    let shm = perf(&format!("pingpong --provider shm {host} -n 1"));
    assert!(String::from_utf8_lossy(&shm.stderr).contains("--provider udp"));
}

#[test]
fn a_server_runs_as_many_processes_as_a_measurement_needs() {
    let server = Server::start();
    let there = |how: &str| json(&format!("{how} --provider udp --host {} --json", server.address));
    let said = there("incast -N 3 --duration 0.3 --warm-up 0.1");
    let each = said["facts"]["messages_per_s_of_each"].as_array().expect("told");
    assert!(each.len() == 3 && each.iter().all(positive), "{said:#}");
    assert!(said["latencies"].get("sent_to_seen").is_none(), "two clocks: {said:#}");
    let said = there("pingpong --nodes 4 -n 200 --warm-up 10");
    assert_eq!(said["figures"]["pairs"]["value"], 12.0, "{said:#}");
    let said = there("multicast --members 3 --duration 1");
    assert!(positive(&said["latencies"]["self_delivery"]["count"]), "{said:#}");
    for fault in ["kill", "freeze"] {
        let said = there(&format!("detect --fault {fault} -n 2"));
        assert_eq!(said["latencies"]["fault_to_dead"]["count"], 2, "{fault}: {said:#}");
    }
    let shm = perf(&format!("incast --host {}", server.address));
    assert!(String::from_utf8_lossy(&shm.stderr).contains("--provider udp"));
}

#[test]
fn a_server_survives_whoever_talks_to_it() {
    let server = Server::start();
    for nonsense in ["", "GET / HTTP/1.1\r\n\r\n", "{\"task\":{\"pong\":{}}}\n"] {
        let mut stream = TcpStream::connect(&server.address).expect("it listens");
        // What it does not like it may refuse to read.
        let _ = stream.write_all(nonsense.as_bytes());
    }
    let host = &server.address;
    let said = json(&format!("pingpong --provider udp --host {host} -n 5 --warm-up 1 --json"));
    assert_eq!(said["latencies"]["rtt"]["count"], 5, "{said:#}");
}
