//! A chat among a few terminals: shows views, one order for all, and what happens when a terminal is killed.
//!
//! ```text
//! cargo run -p quintet-vsync --example chat -- 1      # in one terminal
//! cargo run -p quintet-vsync --example chat -- 2      # in a second
//! cargo run -p quintet-vsync --example chat -- 3      # in a third
//! ```
//! Type lines; every terminal shows them in the same order, with the same positions. Kill one with `kill -9` and watch the
//! others' view; start it again and watch it receive what was said meanwhile. `/leave` goes in good order.

use std::io::BufRead;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use quintet_transport::Authority;
use quintet_vsync::{
    Config, Deliveries, Donation, Event, Group, Member, Node, NodeId, PeerConfig, Position, ViewId,
};

const NODES: u16 = 3;

type Current = Arc<Mutex<Option<(Node, Group)>>>;

/// What a donor still has to tell its learner.
enum Tail {
    Said(String),
    Complete(ViewId),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let me: u16 =
        std::env::args().nth(1).and_then(|a| a.parse().ok()).ok_or("which node am I? 1, 2 or 3")?;
    let address = |n: u16| std::net::SocketAddr::from(([127, 0, 0, 1], 7400 + n));
    let peers = (1..=NODES)
        .filter(|n| *n != me)
        .map(|n| PeerConfig { node: NodeId(n), addr: address(n) })
        .collect();
    let mut config = Config::new("chat", NodeId(me), address(me), peers);
    // A real cluster has a secret authority: `quintet cluster init`.
    let authority = Authority::new("chat", [1; 32])?;
    config.identity = Some(Arc::new(authority.admit(NodeId(me), [me as u8; 32])));
    let mut history: Vec<String> = Vec::new();
    let current: Current = Arc::default();
    thread::spawn({
        let current = current.clone();
        move || read_lines(&current)
    });
    // Every turn is one incarnation: an evicted node comes back as another.
    loop {
        let (node, group, deliveries) = Node::start(config.clone())?;
        println!("* I am {}; looking for the others", node.me());
        *current.lock().unwrap() = Some((node, group.clone()));
        let again = follow(&group, deliveries, &mut history);
        *current.lock().unwrap() = None;
        if !again {
            return Ok(());
        }
    }
}

/// Follows one incarnation to its end; true if another is to follow.
fn follow(group: &Group, mut deliveries: Deliveries, history: &mut Vec<String>) -> bool {
    let mut donations: Vec<(Member, Sender<Tail>)> = Vec::new();
    let mut text = String::new();
    while !deliveries.is_finished() {
        let Some(event) = deliveries.next(Duration::from_secs(1)) else { continue };
        match event {
            Event::Message(m) => {
                let line = format!(
                    "{:>6} {}: {}",
                    m.at.to_string(),
                    m.sender.node,
                    String::from_utf8_lossy(m.bytes)
                );
                println!("{line}");
                donations.retain(|(_, tail)| tail.send(Tail::Said(line.clone())).is_ok());
                history.push(line);
            }
            Event::View(change) => {
                println!("* {}", change.view);
                for (_, tail) in
                    donations.extract_if(.., |(learner, _)| change.view.contains(*learner))
                {
                    let _ = tail.send(Tail::Complete(change.view.id));
                }
            }
            // Somebody joins: what was said so far, then what is said until the view that has it.
            Event::Donate(Donation { learner, mut writer }) => {
                let (tail, said) = channel();
                donations.push((learner, tail));
                let snapshot = history.join("\n") + "\n\n";
                thread::spawn(move || {
                    writer.write(snapshot.as_bytes())?;
                    for part in said {
                        match part {
                            Tail::Said(line) => writer.write(format!("{line}\n").as_bytes())?,
                            Tail::Complete(view) => return writer.finish(view),
                        }
                    }
                    Ok(())
                });
            }
            // The other side of that. An empty line ends the snapshot.
            Event::Chunk(bytes) => {
                let was_complete = text.contains("\n\n");
                text.push_str(&String::from_utf8_lossy(bytes));
                if !was_complete && text.contains("\n\n") {
                    println!("* what was said before:\n{}", text.trim_end());
                    *history = text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect();
                    group.ready(Position::ZERO);
                }
            }
            Event::Blocked(reason) => println!("* waiting: {reason}"),
            Event::Resumed => println!("* going on"),
            Event::Evicted(view) => {
                println!("* the others went on without me in view {view}; joining again");
                return true;
            }
            Event::Left => println!("* left in good order"),
            Event::Failed(why) => println!("* stopped: {why}"),
            _ => {}
        }
    }
    false
}

/// Sends what is typed, as whatever incarnation this node is at the moment.
fn read_lines(current: &Current) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match current.lock().unwrap().as_ref() {
            Some((node, _)) if line == "/leave" => node.leave(),
            Some((_, group)) => {
                if let Err(e) = group.send(line.as_bytes()) {
                    println!("* not sent: {e}");
                }
            }
            None => println!("* not sent: between two incarnations"),
        }
    }
}
