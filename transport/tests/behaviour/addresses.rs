//! Which of an adapter's addresses a link goes by, in the guest of scripts/soft-roce-vm: one that carries.

use std::process::Command;
use std::time::{Duration, Instant};

use quintet_transport::*;

use crate::harness::*;

fn run(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Each end of the cable has a second address while this lives, and what the filters say is lost.
struct Second;

impl Second {
    fn new() -> Second {
        let second = Second;
        for (end, table, mine, theirs) in [("eth-a", 11, 1, 2), ("eth-b", 12, 2, 1)] {
            let mac = if theirs == 1 { 'a' } else { 'b' };
            run(&format!(
                "ip address add 10.77.1.{mine}/24 dev {end}
                 ip neighbour replace 10.77.1.{theirs} lladdr 02:00:00:00:00:0{mac} dev {end} nud permanent
                 ip route replace local 10.77.1.{mine} dev {end} table {table}
                 ip route replace 10.77.1.{theirs} dev {end} src 10.77.1.{mine} table 13
                 tc qdisc add dev {end} clsact"
            ));
        }
        for device in ["rxe0", "rxe1"] {
            let gids = format!("cat /sys/class/infiniband/{device}/ports/1/gids/*");
            let start = Instant::now();
            while !run(&gids).contains(":ffff:0a4d:01") {
                assert!(start.elapsed() < PATIENCE, "{device} does not get its second address");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        second
    }

    /// Of what comes to `end` from the other end's first address, that is lost which `lost` matches and not `kept`.
    fn lose(&self, end: &str, kept: &str, lost: &str) {
        // Lost on its way: an adapter whose own end refuses a packet does not count it as a try.
        let theirs = if end == "eth-a" { 2 } else { 1 };
        let from = format!("match ip src 10.77.0.{theirs}/32 match ip protocol 17 0xff");
        for (pref, which, action) in [(1, kept, "ok"), (2, lost, "drop")] {
            let filter = format!("protocol ip pref {pref} u32 {from} {which} action {action}");
            run(&format!("tc filter add dev {end} ingress {filter}"));
        }
    }

    /// How many packets were kept and lost at `end`.
    fn met(&self, end: &str) -> [u64; 2] {
        let shown = run(&format!("tc -s filter show dev {end} ingress"));
        let sent = shown.lines().filter_map(|line| line.trim().strip_prefix("Sent "));
        let mut met = sent.map(|line| line.split(' ').nth(2).expect("packets").parse().unwrap());
        [met.next().expect("kept"), met.next().expect("lost")]
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        for (end, mine) in [("eth-a", 1), ("eth-b", 2)] {
            run(&format!(
                "tc qdisc delete dev {end} clsact || true
                 ip address delete 10.77.1.{mine}/24 dev {end} || true"
            ));
        }
        for device in ["rxe0", "rxe1"] {
            let gids = format!("cat /sys/class/infiniband/{device}/ports/1/gids/*");
            while run(&gids).contains(":ffff:0a4d:01") {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// First byte of RoCE's header, and there an acknowledgement's.
const ACKNOWLEDGEMENT: &str = "match u8 0x11 0xff at 28";
const ANYTHING: &str = "match u8 0 0 at 28";
const NOTHING: &str = "match u8 0xff 0xff at 28";

fn linked_by_second() {
    let mut nodes = connected(configs(2, PathPolicy::Verbs));
    for (node, address) in nodes.iter().zip(["10.77.1.1", "10.77.1.2"]) {
        let gid = std::net::Ipv4Addr::to_ipv6_mapped(&address.parse().unwrap());
        let reason = &node.poller.links()[0].reason;
        assert!(reason.contains(&format!("({gid})")), "{reason}");
    }
    nodes[0].poller.set_word(CONTROL, 0, 7);
    until(&mut nodes, "a word arrived", |nodes| {
        nodes[1].poller.peer_word(nodes[1].link(1), CONTROL, 0) == 7
    });
}

#[test]
fn an_address_that_carries_nothing_is_passed_over() {
    if !has_adapters() {
        return;
    }
    let second = Second::new();
    for end in ["eth-a", "eth-b"] {
        second.lose(end, NOTHING, ANYTHING);
    }
    linked_by_second();
    assert!(["eth-a", "eth-b"].iter().any(|end| second.met(end)[1] > 0), "it was tried");
}

#[test]
fn an_address_whose_data_go_one_way_only_is_passed_over() {
    if !has_adapters() {
        return;
    }
    for end in ["eth-a", "eth-b"] {
        let second = Second::new();
        // Writes do not arrive there. Those from there do, and are acknowledged: to who writes that looks well.
        second.lose(end, ACKNOWLEDGEMENT, ANYTHING);
        linked_by_second();
        let [acknowledged, lost] = second.met(end);
        assert!(lost > 0, "it was tried");
        // Of the two, one writes only when it has got something.
        assert!(acknowledged > 0 || end == "eth-a", "{acknowledged} acknowledgements");
    }
}
