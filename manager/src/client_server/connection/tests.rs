//! Clients that do not read, or are not there: over a pipe of few bytes, in paused time.

use super::*;
use quintet_client::wire::{ClientId, VERSION};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

struct Client {
    reader: FrameReader<ReadHalf<DuplexStream>>,
    writer: FrameWriter<WriteHalf<DuplexStream>>,
    served: JoinHandle<()>,
}

impl Client {
    /// Connected through a pipe of so many bytes.
    async fn connect(shared: &Arc<Shared>, pipe: usize) -> Client {
        let (near, far) = duplex(pipe);
        let (read, write) = split(far);
        let peer = "127.0.0.1:9".parse().unwrap();
        let served = tokio::spawn(serve_halves(read, write, peer, shared.clone()));
        let (read, write) = split(near);
        let (reader, mut writer) =
            (FrameReader::new(read, 1 << 20), FrameWriter::new(write, 1 << 20));
        let client = ClientId(7);
        let hello =
            Hello { version: VERSION, cluster: "test".into(), client, purpose: Purpose::Calls };
        writer.write_frame(&Frame::Hello(hello)).await.unwrap();
        let mut client = Client { reader, writer, served };
        assert!(matches!(client.next().await, Some(Frame::Welcome(_))));
        client
    }

    async fn next(&mut self) -> Option<Frame> {
        self.reader.read_frame().await.ok().flatten()
    }

    /// A call; nothing is deployed, so it will be refused.
    async fn call(&mut self, seq: u64) -> io::Result<()> {
        let body = Body::from(&[][..]);
        let path = "/a.A/B".into();
        let call = Call { seq, first_incomplete: 1, deadline_ms: 0, min_position: 0, path, body };
        self.writer.write_frame(&Frame::Call(call)).await
    }
}

fn said(shared: &Shared, what: &str) -> bool {
    shared.events.since(0).iter().any(|event| event.text.contains(what))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_disconnected_and_gives_its_places_back() {
    let dir = tempfile::tempdir().unwrap();
    let shared = crate::testing::shared(dir.path(), "client_patience_s = 10, calls = 4");
    let mut other = Client::connect(&shared, 4096).await;
    let mut deaf = Client::connect(&shared, 256).await;
    assert_eq!(shared.connections.taken(), 2);
    // More calls than the pipe has room for refusals; it never reads one.
    let mut seq = 0;
    while deaf.call(seq + 1).await.is_ok() {
        seq += 1;
        if deaf.served.is_finished() {
            break;
        }
    }
    deaf.served.await.unwrap();
    assert!(said(&shared, "it does not read"), "{:?}", shared.events.since(0));
    assert_eq!((shared.connections.taken(), shared.calls.taken()), (1, 0));
    // The other one goes on, having answered what it was asked meanwhile.
    loop {
        match other.next().await.expect("still connected") {
            Frame::Ping(token) => other.writer.write_frame(&Frame::Pong(token)).await.unwrap(),
            _ => continue,
        }
        break;
    }
    other.call(1).await.unwrap();
    loop {
        match other.next().await.expect("still connected") {
            Frame::Refuse(refuse) => break assert_eq!(refuse.seq, 1),
            Frame::Ping(token) => other.writer.write_frame(&Frame::Pong(token)).await.unwrap(),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_keeps_its_connection_and_gets_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    let shared = crate::testing::shared(dir.path(), "client_patience_s = 10");
    let mut slow = Client::connect(&shared, 1024).await;
    for seq in 1..=20 {
        slow.call(seq).await.unwrap();
    }
    for seq in 1..=20 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        loop {
            match slow.next().await.expect("still connected") {
                Frame::Refuse(refuse) => break assert_eq!(refuse.seq, seq),
                Frame::Ping(token) => slow.writer.write_frame(&Frame::Pong(token)).await.unwrap(),
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanished_without_a_word_does_not_keep_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let shared = crate::testing::shared(dir.path(), "client_patience_s = 10");
    let mut gone = Client::connect(&shared, 4096).await;
    let (mut asked, mut farewell) = (0, None);
    while let Some(frame) = gone.next().await {
        match frame {
            Frame::Ping(_) => asked += 1,
            Frame::Goodbye(goodbye) => farewell = Some(goodbye.reason),
            _ => {}
        }
    }
    assert_eq!((asked, farewell), (3, Some(Farewell::Silent)));
    gone.served.await.unwrap();
    assert_eq!(shared.connections.taken(), 0);
}
