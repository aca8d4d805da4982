//! State transfer: a donor's list travels to a learner in pieces, then everything the donor is given after it, until
//! a view joins the learner and the donor says that this was all.

use quintet_transport::Member;
use quintet_vsync::core::Position;

use crate::app::Entry;
use crate::env::Env;
use crate::link::{Chunk, State};
use crate::plan::{MS, US};
use crate::process::Process;

/// A transfer, at the donor.
#[derive(Clone, Debug)]
pub struct Donation {
    /// To whom.
    pub learner: Member,
    /// The learner joined with this view, before this entry of the donor's list.
    pub finish: Option<(u64, usize)>,
    /// Entries in the snapshot.
    snapshot: usize,
    sent: usize,
    loaded: bool,
    started: bool,
    next_at: u64,
}

impl Donation {
    /// A snapshot of the first `snapshot` entries is to be sent.
    pub fn new(learner: Member, snapshot: usize) -> Donation {
        Donation {
            learner,
            finish: None,
            snapshot,
            sent: 0,
            loaded: false,
            started: false,
            next_at: 0,
        }
    }
}

/// A transfer, at the learner.
#[derive(Clone, Debug)]
pub struct Loading {
    /// From whom.
    pub donor: Member,
    /// The snapshot is whole; the tail follows.
    pub loaded: bool,
    /// The core knows that.
    told: bool,
}

impl Loading {
    /// A transfer from `donor` begins.
    pub fn from(donor: Member) -> Loading {
        Loading { donor, loaded: false, told: false }
    }
}

impl Process {
    /// The donor's part: some entries to each learner whose time has come.
    pub(crate) fn donate(&mut self, env: &mut Env) {
        let mut donations = std::mem::take(&mut self.donations);
        donations.retain_mut(|d| {
            let Some(side) = self
                .sides
                .get_mut(&d.learner.node.0)
                .filter(|s| s.peer == d.learner && s.state == State::Up)
            else {
                return false;
            };
            if env.now < d.next_at {
                return true;
            }
            d.next_at = env.now + env.tapes.transfer.tail(20 * US, 3 * MS);
            if !d.started {
                d.started = true;
                side.bulk_out.push(Chunk::Begin);
            }
            let piece = env.tapes.transfer.tail(4, 4000) as usize;
            let limit = if d.loaded { self.app.history().len() } else { d.snapshot };
            let limit = d.finish.map_or(limit, |(_, upto)| limit.min(upto));
            let upto = limit.min(d.sent + piece);
            if upto > d.sent {
                side.bulk_out.push(Chunk::Entries(self.app.history()[d.sent..upto].to_vec()));
                d.sent = upto;
            }
            if !d.loaded && d.sent >= d.snapshot {
                d.loaded = true;
                side.bulk_out.push(Chunk::Loaded);
            }
            if let Some((view, _)) = d.finish.filter(|f| f.1 <= d.sent && d.loaded) {
                side.bulk_out.push(Chunk::Finish(view));
                return false;
            }
            true
        });
        let next = donations.iter().map(|d| d.next_at).min();
        self.donations = donations;
        if let Some(at) = next {
            self.turn_by(at, env);
        }
    }

    /// The learner's part: takes in what has come.
    pub(crate) fn load(&mut self, env: &mut Env) {
        let Some(mut loading) = self.loading.take() else { return };
        let node = loading.donor.node.0;
        let Some(side) = self.sides.get_mut(&node).filter(|s| s.peer == loading.donor) else {
            self.loading = Some(loading);
            return;
        };
        let chunks: Vec<Chunk> = side.bulk.ready.drain(..).collect();
        let mut finished = false;
        for chunk in chunks {
            match chunk {
                Chunk::Begin => {
                    self.app.clear();
                    loading = Loading::from(loading.donor);
                }
                Chunk::Entries(entries) => self.take(&entries, env),
                Chunk::Loaded => loading.loaded = true,
                Chunk::Finish(view) => {
                    finished = true;
                    env.stats.transfers += 1;
                    self.note(env, 60, loading.donor, format_args!("has all up to view {view}"));
                }
            }
        }
        if loading.loaded && !loading.told {
            loading.told = true;
            self.core.ready(env.local(self.me.node.0), Position(self.app.applied()));
        }
        if !finished {
            self.loading = Some(loading);
        }
    }

    fn take(&mut self, entries: &[Entry], env: &mut Env) {
        for &entry in entries {
            let expected = self.app.push(entry, &env.checks.order);
            if entry.message != 0 {
                let verdict = env.checks.order.fifo(self.me, entry.message, expected);
                env.checks.note(verdict);
            }
        }
    }
}
