//! What a manager says: each frame, and what becomes of the call it speaks of.

use super::{Action, LinkId, Session, Time, Violation, doubled};
use crate::wire::{Code, Farewell, Frame, Goodbye, Late, Reason, Refuse, Reply, Status};

impl<T> Session<T> {
    /// A frame came. Frames of connections that were closed meanwhile are ignored.
    ///
    /// # Errors
    /// The manager broke the protocol; its connection was given up.
    pub fn handle_frame(&mut self, now: Time, link: LinkId, frame: Frame) -> Result<(), Violation> {
        let Some(at) = self.find(link) else { return Ok(()) };
        let result = self.understand(now, at, link, frame);
        if let Err(violation) = &result {
            let goodbye =
                Goodbye { reason: Farewell::Protocol, message: violation.0.as_str().into() };
            self.actions.push_back(Action::Send { link, frame: Frame::Goodbye(goodbye) });
            self.actions.push_back(Action::Close { link });
            self.lose(now, at, &violation.0);
            self.reroute(now, &violation.0);
        }
        result
    }

    fn understand(
        &mut self,
        now: Time,
        at: usize,
        link: LinkId,
        frame: Frame,
    ) -> Result<(), Violation> {
        let greeted = match self.managers[at].up_mut() {
            Some(up) => {
                up.heard = true;
                true
            }
            None => false,
        };
        match frame {
            Frame::Goodbye(goodbye) => self.farewell(now, at, link, &goodbye),
            Frame::Welcome(welcome) if !greeted => self.welcome(now, at, link, welcome)?,
            Frame::View(view) if greeted => self.hear_view(now, at, view)?,
            Frame::Reply(reply) if greeted => self.reply(now, reply)?,
            Frame::Refuse(refuse) if greeted => self.refuse(now, at, link, &refuse),
            Frame::Late(late) if greeted => self.late(now, late),
            Frame::Ping(token) if greeted => {
                self.actions.push_back(Action::Send { link, frame: Frame::Pong(token) })
            }
            Frame::Pong(_) if greeted => {}
            other => {
                return Err(Violation(format!(
                    "a manager does not say this here: {}",
                    name(&other)
                )));
            }
        }
        Ok(())
    }

    fn reply(&mut self, now: Time, reply: Reply) -> Result<(), Violation> {
        let next = self.calls.first_incomplete() + self.calls.span() as u64;
        let sent = match self.calls.get_mut(reply.seq) {
            Some(pending) => pending.copies > 0,
            None if reply.seq < next => return Ok(()), // Answered through another copy, or given up.
            None => false,
        };
        if !sent {
            return Err(Violation(format!("call {} was answered before it was made", reply.seq)));
        }
        let pending = self.calls.remove(reply.seq).expect("looked up above");
        self.position = self.position.max(reply.position);
        self.counters.answered += 1;
        self.gap.answered(now, self.calls.live() > 0);
        self.actions.push_back(Action::Answer { waiter: pending.waiter, outcome: Ok(reply) });
        Ok(())
    }

    fn refuse(&mut self, now: Time, at: usize, link: LinkId, refuse: &Refuse) {
        self.counters.refusals += 1;
        let jitter = self.jitter();
        let (first, longest) = self.config.backoff;
        let Some(pending) = self.calls.get_mut(refuse.seq) else { return };
        pending.copies = pending.copies.saturating_sub(1);
        if pending.on != Some(link) {
            return; // An older copy; the newer one is under way.
        }
        pending.on = None;
        match refuse.reason {
            Reason::UnknownMethod => {
                self.end(now, refuse.seq, Status::new(Code::Unimplemented, refuse.message.clone()));
            }
            // No other copy is under way, so it is over; else one of them brings the outcome.
            Reason::Expired if pending.copies == 0 => {
                let status = Status::new(Code::DeadlineExceeded, refuse.message.clone());
                self.end(now, refuse.seq, status);
            }
            Reason::Overloaded | Reason::Expired => {
                pending.overloads += 1;
                let pause = doubled(first, pending.overloads - 1, longest).mul_f64(jitter);
                let resend_at = now + pause;
                pending.resend_at = Some(resend_at);
                if pending.deadline.is_some_and(|deadline| deadline <= resend_at) {
                    self.give_up(now, refuse.seq, &refuse.message);
                } else {
                    self.wake_at(resend_at);
                }
            }
            Reason::NotPrimary | Reason::Starting | Reason::Draining => {
                self.shun(now, at, refuse.reason)
            }
        }
    }

    /// A call that has a deadline of its own ends here; one that has none was to go on until it is answered.
    fn late(&mut self, now: Time, late: Late) {
        let Some(pending) = self.calls.get_mut(late.seq) else { return };
        let status = Status::new(Code::DeadlineExceeded, late.message);
        if pending.deadline.is_some() {
            self.counters.expired += 1;
            self.end(now, late.seq, status);
        } else {
            self.actions.push_back(Action::Late { seq: late.seq, status });
        }
    }

    /// A manager said how a call ended.
    fn end(&mut self, now: Time, seq: u64, status: Status) {
        let Some(pending) = self.calls.remove(seq) else { return };
        self.gap.answered(now, self.calls.live() > 0);
        self.actions.push_back(Action::Answer { waiter: pending.waiter, outcome: Err(status) });
    }
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "Hello",
        Frame::Welcome(_) => "Welcome",
        Frame::View(_) => "View",
        Frame::Call(_) => "Call",
        Frame::Reply(_) => "Reply",
        Frame::Refuse(_) => "Refuse",
        Frame::Late(_) => "Late",
        Frame::Goodbye(_) => "Goodbye",
        Frame::Ping(_) => "Ping",
        Frame::Pong(_) => "Pong",
        Frame::Fetch(_) => "Fetch",
        Frame::Package(_) => "Package",
        Frame::NoPackage(_) => "NoPackage",
    }
}
